"""A record in a shard: flat JSON of one fixed schema, which readers that guess a schema guess right."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Self

from nextscene.common.strict_json import check_types, parse_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class FlatRecord:
    """For dataclasses whose fields are text, integers and numbers with decimals: always every field, never null."""

    def to_bytes(self: DataclassInstance) -> bytes:
        """Canonical UTF-8 JSON: keys sorted, no spaces. The same record gives the same bytes.

        Raise ValueError for what `from_bytes` would refuse: a number that is not finite, or text that is not Unicode.
        """
        values = asdict(self)
        text = json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raise ValueError if a field is missing, unknown or of another type, a number not finite, or text no text."""
        kinds = _kinds(cls)
        values = check_types(parse_json(data), kinds)
        for name, kind in kinds.items():
            if kind is float and not math.isfinite(values[name]):
                raise ValueError(f"{name!r} is not finite")
            if kind is str:
                values[name].encode()  # JSON can hold halves of letters
        return cls(**values)


def _kinds(cls: Any) -> dict[str, type]:
    return {field.name: _KINDS[str(field.type)] for field in fields(cls)}


_KINDS = {"str": str, "int": int, "float": float}
