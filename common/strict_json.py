"""JSON from strangers: whatever it is, it becomes plain values or a ValueError."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn


def parse_json(data: bytes) -> Any:
    """Raise ValueError for what is not strict JSON: NaN and infinities, broken UTF-8, nesting without end."""
    try:
        return json.loads(data.decode(), parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def check_types(value: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """`value` if it is an object of exactly these fields, each of exactly its type. Raise ValueError."""
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
