"""A file system found by its URI, and what is tried of it a few times before it is called a fault."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from pyarrow import ArrowException
from pyarrow import fs as pafs
from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

from nextscene.common.errors import StoppedError, UsageError
from nextscene.common.text import first_line

T = TypeVar("T")
SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
"""The schemes of the places that can be read and written; file is a local path."""

_INSTEAD = {
    "hf": "fetch it with `hf download`, and give the folder",
    "http": "fetch it, and give the file or its folder",
    "https": "fetch it, and give the file or its folder",
    "s3a": "write s3://…",
    "s3n": "write s3://…",
    "az": "write abfs://ACCOUNT.dfs.core.windows.net/CONTAINER/…",
}
_TRIES, _TRYING_SECONDS = 4, 12.0  # a store that is silent takes a quarter of a minute for each try
_GCS_TRYING_SECONDS = 3  # of Google's client itself, which would else try for a quarter of an hour
_log = logging.getLogger(__name__)


class StorageFault(StoppedError):
    """The disk, the network, a permission or a credential failed; nothing half-written was published."""


class BadLocation(UsageError, ValueError):
    """A location that can never work: an unknown scheme, credentials in the URI, a path that leaves the root."""


def split_query(uri: str) -> tuple[str, str]:
    """A URI without its query, and the query with its `?`. The name of a local file may hold one and has no query."""
    place, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return place, f"{mark}{query}"


@lru_cache(maxsize=64)
def connect(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI or a local path, and the path inside it. Raise BadLocation, StorageFault."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    shown = split_query(uri)[0]
    _check_scheme(shown)

    def once() -> tuple[pafs.FileSystem, str]:
        try:
            found: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(_patient(uri))
        except (ValueError, NotImplementedError) as error:
            raise BadLocation(f"{shown}: {first_line(error).replace(_patient(uri), shown)}") from error
        return found

    filesystem, path = with_retries("reach", "", shown, once)  # it asks the network where a bucket is
    if filesystem.type_name == "s3" and "tls_" not in uri:
        make, options = filesystem.__reduce__()
        filesystem = make(*options)  # this one tries 3 times, that of a URI 11 times, which is minutes
    return filesystem, path.rstrip("/").removeprefix("/" if shown.startswith("abfs") else "")


def _check_scheme(shown: str) -> None:
    scheme, _, rest = shown.partition("://")
    if scheme not in SCHEMES:
        instead = f"; {_INSTEAD[scheme]}" if scheme in _INSTEAD else ""
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise BadLocation(f"{shown}: {scheme}:// is not supported, only a path or {known}{instead}")
    if scheme in ("abfs", "abfss") and "/" not in rest.strip("/") and "@" not in rest:
        raise BadLocation(f"{shown} names no container; write {scheme}://ACCOUNT.dfs.core.windows.net/CONTAINER/…")


def _patient(uri: str) -> str:
    """The URI with a bound to how long Google's client tries, where it has none of its own."""
    place, query = split_query(uri)
    if not place.startswith(("gs://", "gcs://")) or "retry_limit_seconds=" in query:
        return uri
    return f"{place}{query}{'&' if query else '?'}retry_limit_seconds={_GCS_TRYING_SECONDS}"


# The connections of a process are not those of its children: they would read each other's answers.
os.register_at_fork(after_in_child=connect.cache_clear)


def with_retries(verb: str, path: str, root: str, action: Callable[[], T]) -> T:
    """What `action` returns, tried a few times. Raise StorageFault, or FileNotFoundError at once."""
    try:
        return Retrying(
            stop=stop_after_attempt(_TRIES) | stop_after_delay(_TRYING_SECONDS),
            wait=wait_exponential_jitter(multiplier=0.2, max=5),
            retry=retry_if_exception(lambda e: isinstance(e, OSError) and not isinstance(e, FileNotFoundError)),
            before_sleep=before_sleep_log(_log, logging.INFO),
            reraise=True,
        )(action)
    except FileNotFoundError:
        raise
    except (OSError, ArrowException) as fault:  # Arrow's is of what a store said and Arrow has no class for
        raise storage_fault(verb, path, root, fault) from fault


def storage_fault(verb: str, path: str, root: str, fault: OSError | ArrowException) -> StorageFault:
    reason = isinstance(fault, OSError) and fault.strerror
    return StorageFault(f"cannot {verb} {path or '.'} in {root}: {reason or first_line(fault)}")
