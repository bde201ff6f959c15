"""Rows that can be stored in a ledger: untrusted text is cleaned, or it fails the one clip that it belongs to.

Untrusted text comes from the source, the headers of its files, FFmpeg's messages about them, and the judge's answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

from nextscene.common.text import readable_text
from nextscene.curation.ledger import Row

UNWRITABLE = "unwritable"
"""The reason of a row from which a value was removed that Parquet cannot store."""

_INT64 = range(-(2**63), 2**63)
_MAX_BYTES = 16 << 20
_NOT_CUT: dict[str, Any] = {"frames": -1, "width": -1, "height": -1, "bytes": -1, "mp4_sha256": ""}


def storable(row: Row) -> Row:
    """Return the row with its evidence columns cleaned and cut to size.

    If another value cannot be stored, return the row as `failed: unwritable` without that value.
    """
    columns = fields(Row)
    cleaned: dict[str, Any] = {
        c.name: readable_text(getattr(row, c.name), c.metadata["evidence"]) for c in columns if "evidence" in c.metadata
    }
    row = replace(row, **cleaned)
    wrong = {c.name: why for c in columns if (why := _why_not(getattr(row, c.name)))}
    if not wrong:
        return row
    blanks = {c.name: c.default for c in columns if c.name in wrong and c.default is not MISSING}
    detail = readable_text("; ".join(f"{name} cannot be written: {why}" for name, why in wrong.items()))
    return replace(row, **{**_NOT_CUT, **blanks, "outcome": "failed", "reason": UNWRITABLE, "detail": detail})


def storable_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns whose values can be stored."""
    return {name: value for name, value in columns.items() if not _why_not(value)}


def _why_not(value: str | int | float) -> str:
    """Return the reason why a value cannot be stored, as a phrase; "" if it can be stored."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"it is {value}"
    if isinstance(value, int):
        return "" if value in _INT64 else "it does not fit in 64 bits"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "it is not Unicode text"
    return "" if size <= _MAX_BYTES else f"it has {size:,} bytes, {_MAX_BYTES:,} are the most"
