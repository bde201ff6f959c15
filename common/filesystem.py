"""File systems by URI, and retries of their operations before a StorageFault is raised."""

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
"""The schemes that can be read and written; `file` is a local path."""

_INSTEAD = {
    "hf": "fetch it with `hf download`, and give the folder",
    "http": "fetch it, and give the file or its folder",
    "https": "fetch it, and give the file or its folder",
    "s3a": "write s3://…",
    "s3n": "write s3://…",
    "az": "write abfs://ACCOUNT.dfs.core.windows.net/CONTAINER/…",
}
_TRIES, _TRYING_SECONDS = 4, 12.0  # a silent store takes 15 s for each try
_GCS_TRYING_SECONDS = 3  # of Google's client itself, which tries for 15 minutes otherwise
_log = logging.getLogger(__name__)


class StorageFault(StoppedError):
    """The disk, the network, a permission or a credential failed. No incomplete file was published."""


class Unreachable(StorageFault):
    """A bucket or a store that does not answer, or not to these keys."""

    needs_other_command = True


class BadLocation(UsageError, ValueError):
    """A location that cannot work: an unknown scheme, credentials in the URI, a path that leaves the root."""


def split_query(uri: str) -> tuple[str, str]:
    """Return a URI without its query, and the query with its `?`. A local path has no query, whatever it contains."""
    place, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return place, f"{mark}{query}"


@lru_cache(maxsize=64)
def connect(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a URI or a local path, and the path in it. Raise BadLocation, StorageFault."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    shown = split_query(uri)[0]
    _check_scheme(shown)

    def once() -> tuple[pafs.FileSystem, str]:
        try:
            found: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(_limit_gcs_retries(uri))
        except (ValueError, NotImplementedError) as error:
            raise BadLocation(f"{shown}: {first_line(error).replace(_limit_gcs_retries(uri), shown)}") from error
        return found

    try:
        filesystem, path = with_retries("reach", "", shown, once)  # looks the bucket's region up on the network
    except StorageFault as fault:
        remedy = "check its name, the network, the keys and the endpoint, and run the command again"
        raise Unreachable(f"{fault}; {remedy}") from fault
    if filesystem.type_name == "s3" and "tls_" not in uri:
        make, options = filesystem.__reduce__()
        filesystem = make(*options)  # retries 3 times; a file system made from a URI retries 11 times, for minutes
    return filesystem, path.rstrip("/").removeprefix("/" if shown.startswith("abfs") else "")


def _check_scheme(shown: str) -> None:
    scheme, _, rest = shown.partition("://")
    if scheme not in SCHEMES:
        instead = f"; {_INSTEAD[scheme]}" if scheme in _INSTEAD else ""
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise BadLocation(f"{shown}: {scheme}:// is not supported, only a path or {known}{instead}")
    if scheme in ("abfs", "abfss") and "/" not in rest.strip("/") and "@" not in rest:
        raise BadLocation(f"{shown} names no container; write {scheme}://ACCOUNT.dfs.core.windows.net/CONTAINER/…")


def _limit_gcs_retries(uri: str) -> str:
    """Return the URI with a limit on how long Google's client retries, unless it has one."""
    place, query = split_query(uri)
    if not place.startswith(("gs://", "gcs://")) or "retry_limit_seconds=" in query:
        return uri
    return f"{place}{query}{'&' if query else '?'}retry_limit_seconds={_GCS_TRYING_SECONDS}"


# A forked child must not share connections: parent and child would read each other's answers.
os.register_at_fork(after_in_child=connect.cache_clear)


def with_retries(verb: str, path: str, root: str, action: Callable[[], T]) -> T:
    """Return what `action` returns, after a few tries. Raise StorageFault; FileNotFoundError at once."""
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
    except (OSError, ArrowException) as fault:  # ArrowException: an answer of the store that Arrow has no class for
        raise storage_fault(verb, path, root, fault) from fault


def storage_fault(verb: str, path: str, root: str, fault: OSError | ArrowException) -> StorageFault:
    """Return the StorageFault for a failed operation on `path` in `root`."""
    reason = isinstance(fault, OSError) and fault.strerror
    return StorageFault(f"cannot {verb} {f'{path} in {root}' if path else root}: {reason or first_line(fault)}")
