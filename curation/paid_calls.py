"""All paid calls for a clip: those of this attempt and of earlier attempts.

Tested in tests/curation/run/test_asking_anew.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

from nextscene.curation.ledger import Row
from nextscene.judge.spending.prices import Usage

_USAGE = tuple(item.name for item in fields(Usage))


def with_calls(row: Row, calls: Sequence[Mapping[str, Any]]) -> Row:
    """Return the row with these calls, in the form of `Call.record`, and their sums."""
    prompt_tokens, output_tokens, usd = sums_of(calls)
    listed = json.dumps(calls, ensure_ascii=False) if calls else ""
    return replace(row, calls=listed, input_tokens=prompt_tokens, output_tokens=output_tokens, usd=usd)


def with_earlier_calls(row: Row, earlier: Row | None) -> Row:
    """Return the row of a retried clip with all its calls: those paid earlier come first, each call once."""
    if earlier is None or not earlier.calls:
        return row
    calls, keys = json.loads(row.calls) if row.calls else [], keys_of(row)
    return with_calls(row, [*(call for call in json.loads(earlier.calls) if call["key"] not in keys), *calls])


def keys_of(row: Row) -> frozenset[str]:
    """Return the keys of the calls that a row lists."""
    return frozenset(call["key"] for call in json.loads(row.calls)) if row.calls else frozenset()


def sums_of(calls: Sequence[Mapping[str, Any]]) -> tuple[int, int, float]:
    """Return prompt tokens, output tokens and US dollars of calls."""
    usages = [Usage(**{name: call[name] for name in _USAGE}) for call in calls]
    usd = sum((Decimal(call["usd"]) for call in calls), Decimal(0))
    return sum(usage.prompt_tokens for usage in usages), sum(usage.output_tokens for usage in usages), float(usd)
