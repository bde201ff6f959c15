"""How the asking goes, apart from what asks: who is told of it need not load the SDK."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class CallProgress:
    """How the asking goes. Money in US dollars; `trouble` is the last fault if nothing was answered since."""

    answers: int
    spent: Decimal
    lost: Decimal
    under_way: int
    in_batches: int
    trouble: str
