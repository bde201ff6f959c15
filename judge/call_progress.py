"""Progress of the calls, in a module that does not load the SDK.

Tested in tests/judge/spending/test_cached_client.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class CallProgress:
    """Progress of the calls. Money in US dollars; `trouble` is the last error, "" if anything was answered since."""

    answers: int
    spent: Decimal
    lost: Decimal
    under_way: int
    in_batches: int
    trouble: str
