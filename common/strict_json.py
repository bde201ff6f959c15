"""Strict JSON from untrusted input: plain values, or a ValueError.

Tested in tests/shards/format/test_sample.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn


def parse_json(data: bytes) -> Any:
    """Return the value. Raise ValueError for what is not strict JSON: NaN, infinities, invalid UTF-8, deep nesting."""
    try:
        return json.loads(data.decode(), parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def check_types(value: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Return `value` if it is an object with exactly these fields, each of exactly its type. Raise ValueError."""
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    for name, kind in kinds.items():
        if type(value.get(name)) is not kind:
            raise ValueError(f"{name!r} should be {kind.__name__}, is {value.get(name)!r:.100}")
    if unknown := value.keys() - kinds.keys():
        raise ValueError(f"unknown field {min(unknown)!r:.100}")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
