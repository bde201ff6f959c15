"""A file system found by its URI, and what is tried of it a few times before it is called a fault."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from pyarrow import fs as pafs
from tenacity import Retrying, before_sleep_log, retry_if_exception, stop_after_attempt, wait_exponential_jitter

T = TypeVar("T")
_log = logging.getLogger(__name__)


class StorageFault(Exception):
    """The disk, the network, a permission or a credential failed; nothing half-written was published."""


class BadLocation(ValueError):
    """A location that can never work: an unknown scheme, credentials in the URI, a path that leaves the root."""


def split_query(uri: str) -> tuple[str, str]:
    """A URI without its query, and the query with its `?`. The name of a local file may hold one and has no query."""
    place, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return place, f"{mark}{query}"


@lru_cache(maxsize=64)
def connect(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI or a local path, and the path inside it. Raises BadLocation, StorageFault."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    shown = split_query(uri)[0]

    def once() -> tuple[pafs.FileSystem, str]:
        try:
            found: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(uri)
        except (ValueError, NotImplementedError) as error:
            raise BadLocation(f"{shown}: {first_line(error).replace(uri, shown)}") from error
        return found

    filesystem, path = attempt("reach", "", shown, once)  # it asks the network where a bucket is
    return filesystem, path.rstrip("/")


# The connections of a process are not those of its children: they would read each other's answers.
os.register_at_fork(after_in_child=connect.cache_clear)


def attempt(verb: str, path: str, root: str, action: Callable[[], T]) -> T:
    """What `action` returns, tried a few times. Raises StorageFault, or FileNotFoundError at once."""
    try:
        return Retrying(
            stop=stop_after_attempt(4),
            wait=wait_exponential_jitter(multiplier=0.2, max=5),
            retry=retry_if_exception(lambda e: isinstance(e, OSError) and not isinstance(e, FileNotFoundError)),
            before_sleep=before_sleep_log(_log, logging.INFO),
            reraise=True,
        )(action)
    except FileNotFoundError:
        raise
    except OSError as fault:
        raise fault_of(verb, path, root, fault) from fault


def fault_of(verb: str, path: str, root: str, fault: OSError) -> StorageFault:
    return StorageFault(f"cannot {verb} {path or '.'} in {root}: {fault.strerror or first_line(fault)}")


def first_line(error: Exception) -> str:
    """Its message on one line, or its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
