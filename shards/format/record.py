"""A record in a shard: flat JSON with a fixed schema, which readers that infer schemas infer correctly.

Tested in tests/shards/format/test_sample.py.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Self

from nextscene.common.strict_json import check_types, parse_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class FlatRecord:
    """A base of dataclasses of strings, integers and floats: every field is always present, never null."""

    def to_bytes(self: DataclassInstance) -> bytes:
        """Return canonical UTF-8 JSON: sorted keys, no spaces. The same record gives the same bytes.

        Raise ValueError for what `from_bytes` would refuse: a number that is not finite, or invalid Unicode.
        """
        values = asdict(self)
        text = json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the record. Raise ValueError for fields missing, unknown, of another type or not finite."""
        kinds = _kinds(cls)
        values = check_types(parse_json(data), kinds)
        for name, kind in kinds.items():
            if kind is float and not math.isfinite(values[name]):
                raise ValueError(f"{name!r} is not finite")
            if kind is str:
                values[name].encode()  # raises for a lone surrogate, which JSON can hold
        return cls(**values)


def _kinds(cls: Any) -> dict[str, type]:
    return {field.name: _KINDS[str(field.type)] for field in fields(cls)}


_KINDS = {"str": str, "int": int, "float": float}
