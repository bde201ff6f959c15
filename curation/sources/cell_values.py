"""Values of table cells. Their types are checked and never coerced."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from itertools import islice
from typing import Any

from nextscene.common.text import MAX_TEXT_BYTES
from nextscene.curation.sources.caption import not_unicode

MAX_SECONDS = 10**7
_MAX_NAME_BYTES = 16 << 10
_MAX_DEPTH = 100
_FURTHER = "its further columns, which are kept as provenance,"
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MAX_SHOWN = 60
_REMEDIES: Mapping[type, str] = {
    list: "give one text",
    tuple: "give one text",
    dict: "give one text",
    bytes: "decode it, and write it as text",
}


class WrongType(ValueError):
    """An error: a value whose type its column cannot have. The message is a phrase with the type and the remedy."""


class InvalidValue(ValueError):
    """An error: a value of the right type that is not valid for a clip.

    `reason` is a word to count by, and the message is a phrase.
    """

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason


def check_name(text: str, column: str) -> None:
    """Raise InvalidValue for a name that is too long, cannot be written as UTF-8, or that no file can have."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > _MAX_NAME_BYTES:
        raise InvalidValue("bad_name", f"its {column} has {size:,} bytes, {_MAX_NAME_BYTES:,} are the most")
    if wrong := not_unicode(text) or ("it holds a zero byte" if "\0" in text else ""):
        raise InvalidValue("bad_name", f"its {column} {text[:80]!a} cannot be used: {wrong}")


def text_of(value: Any) -> str:
    """Return the text of a cell; "" if it is absent. Raise WrongType."""
    if is_absent(value):
        return ""
    if isinstance(value, str):
        return value
    remedy = _REMEDIES.get(type(value), "write it as text")
    raise WrongType(f"is {_with_type(value)}, not text; {remedy}")


def id_of(value: Any) -> str:
    """Return the same as `text_of`, but a whole number as its decimal digits."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text_of(value)


def video_of(value: Any) -> str:
    """Return the same as `text_of`. The message of WrongType gives the remedy for files inside the table itself."""
    if isinstance(value, bytes) or (isinstance(value, Mapping) and value.keys() & {"bytes", "path"}):
        raise WrongType(
            f"is {_with_type(value)}: a file inside the table, which only a layout reads, such as hf-parquet:FOLDER;"
            " or write the files out, and give their names as text"
        )
    return text_of(value)


def milliseconds_of(value: Any) -> int | None:
    """Return seconds, given as a number or the text of a number, in milliseconds; None if absent.

    Raise WrongType, or InvalidValue for a time that no video has.
    """
    if is_absent(value) or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise WrongType(f"is {_with_type(value)}, not a number of seconds; write it as one, such as 90.5")
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        raise WrongType(f"{abbreviated(value)} is not a number of seconds, such as 90.5")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds <= MAX_SECONDS:
        raise InvalidValue("bad_span", f"{abbreviated(value)} is not between 0 and {MAX_SECONDS} seconds")
    return round(seconds * 1000)


def provenance_of(others: Mapping[str, Any]) -> str:
    """Return the values under their names as a JSON object, without absent and empty ones; "" if none remains.

    Raise InvalidValue for values that nest too deep, cannot be written as UTF-8, or are too long.
    """
    given = {name: value for name, value in others.items() if not is_absent(value) and value != ""}
    if not given:
        return ""
    try:
        try:
            text = _dumped(given)
        except ValueError:  # NaN or infinity
            text = _dumped(_plain(given))
        too_deep = text.count("[") + text.count("{") > _MAX_DEPTH and _nests_deeper(given, _MAX_DEPTH)
    except RecursionError:
        too_deep = True
    if too_deep:
        raise InvalidValue("bad_provenance", f"{_FURTHER} nest deeper than {_MAX_DEPTH}")
    if wrong := not_unicode(text):
        raise InvalidValue("bad_provenance", f"{_FURTHER} are not Unicode text: {wrong}")
    if len(text) > MAX_TEXT_BYTES:
        longest = max(given, key=lambda name: len(_dumped(_plain(given[name]))))
        much = f"{len(text):,} letters, {MAX_TEXT_BYTES:,} are the most; the longest is {abbreviated(longest)}"
        raise InvalidValue("bad_provenance", f"{_FURTHER} come to {much}")
    return text


def is_absent(value: Any) -> bool:
    """Return whether there is no value: None, or NaN, which pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def abbreviated(value: Any) -> str:
    """Return a value for a message, cut short; an object is shown by its names.

    The value is cut before it is formatted, so that a huge one does not take much memory.
    """
    if isinstance(value, Mapping):
        text = f"{{{', '.join(map(str, islice(value, 4)))}}}"
    elif isinstance(value, (list, tuple)):
        text = (
            f"[{', '.join('[…]' if isinstance(inner, (list, tuple)) else abbreviated(inner) for inner in value[:4])}]"
        )
    elif isinstance(value, bytes):
        text = f"{len(value):,} bytes"
    else:
        text = repr(value[:_MAX_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _with_type(value: Any) -> str:
    """Return a value with its type, in words."""
    if isinstance(value, bool):
        return f"{str(value).lower()}, a truth value"
    names = {list: "a list", tuple: "a list", dict: "an object", bytes: "bytes", int: "a number", float: "a number"}
    return f"{names.get(type(value), f'a {type(value).__name__}')} ({abbreviated(value)})"


def _nests_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return levels < 0 or any(_nests_deeper(one, levels - 1) for one in inner)


def _dumped(values: Any) -> str:
    return json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_written)


def _written(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    """Return the value with None for NaN and a word for infinity, since JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
