"""Containment of one location in another, even if the two have different names."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from urllib.parse import parse_qs

from nextscene.common.filesystem import connect, split_query
from nextscene.common.storage import Storage

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def is_inside(inner: Storage, outer: Storage, path: str = "") -> bool:
    """Return whether `path` in `inner` is `outer` or inside it.

    Links and `..` on a disk, and repeated slashes, are resolved. The two locations need not exist. Buckets at different
    endpoints are different. Raise BadLocation, StorageFault.
    """
    here, there = inner.local_path(path), outer.local_path("")
    if here is not None and there is not None:
        here, there = Path(os.path.realpath(here)), Path(os.path.realpath(there))
        return any(_same(place, there) for place in (here, *here.parents))
    if here is not None or there is not None or not _same_store(inner.uri, outer.uri):
        return False
    return f"{_normal(inner.full_path(path))}/".startswith(f"{_normal(outer.full_path(''))}/")


def s3_endpoint(uri: str) -> str:
    """Return the endpoint that an s3:// URI or the environment names, without its scheme; "" for Amazon's own."""
    named = parse_qs(split_query(uri)[1].removeprefix("?")).get("endpoint_override")
    of_environment = next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
    return (named[0] if named else of_environment).rpartition("://")[2].rstrip("/")


def _same(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and one.samefile(other))


def _same_store(one: str, other: str) -> bool:
    stores = connect(one)[0], connect(other)[0]
    if all(store.type_name == "s3" for store in stores):  # not equal if only the region or a credential differs
        return s3_endpoint(one) == s3_endpoint(other)
    return bool(stores[0] == stores[1])


def _normal(path: str) -> str:
    return posixpath.normpath(f"/{path.lstrip('/')}")
