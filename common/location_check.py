"""The check of a location that a user gives: a local path, or the URI of an object store."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from nextscene.common.filesystem import BadLocation, split_query

_FILE_SYSTEM_SCHEMES = ("file", "hdfs", "viewfs")
"""Schemes of file systems, which read `//` as `/`; an object store would look for a part with an empty name."""

_ONE_SLASH = re.compile(r"(?:s3|gs|gcs|abfss?|hdfs|hf|https?):/(?!/)")


def normalize_location(text: str) -> str:
    """Return an absolute local path, or a URI without trailing slashes. Raise BadLocation for one that cannot work."""
    if not text.strip():
        raise BadLocation(f"{text!r} is empty; name a place")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadLocation(f"{text!a} is not UTF-8; rename what is not, or go there by a link")
    if _ONE_SLASH.match(text):
        raise BadLocation(f"{text} has one slash behind its scheme; write {text.replace(':/', '://', 1)}")
    if "://" in text:
        return _normalize_uri(text)
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError as error:
        raise BadLocation(f"{text}: {error}") from error


def _normalize_uri(text: str) -> str:
    scheme, _, rest = text.partition("://")
    authority = rest.split("/", 1)[0]
    # A secret may contain a slash, which would end the authority early.
    in_azure = scheme in ("abfs", "abfss") and ":" not in authority  # CONTAINER@ACCOUNT
    if ("@" in authority and not in_azure) or (":" in authority and "@" in rest):
        raise BadLocation(f"{scheme}://… holds a credential; give it through the environment, not in the URI")
    if not rest.strip("/"):
        raise BadLocation(f"{text} names no bucket and no folder")
    place, query = split_query(text)
    if not {".", ".."}.isdisjoint(unquote(place).split("/")):
        raise BadLocation(f"{place} has a part that is `.` or `..`; write the address without it")
    if scheme not in _FILE_SYSTEM_SCHEMES and "//" in place.partition("://")[2].rstrip("/"):
        raise BadLocation(f"{place} has an empty part (`//`), which cannot be reached; write one slash")
    return f"{place.rstrip('/')}{query.rstrip('/')}"
