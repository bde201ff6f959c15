"""Price and budget of a judge that costs money.

Tested in tests/pipelines/cli/test_begun_dataset.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from nextscene.judge.spending.prices import Price


@dataclass(frozen=True)
class JudgeBudget:
    """Price, budget and way of asking. Not part of what decides the dataset: each run may have its own.

    `uncaptioned` says what becomes of clips without a caption when a plan is made: they are a mistake, captioned by
    the judge first, or left out. A plan that stands has decided it. `prices` is the table that `--prices` gave, as
    text; "" is that of this program. `is_limit_given` is False where nobody said how much may be spent.
    """

    price: Price
    budget: Decimal | None = None
    in_batches: bool = False
    uncaptioned: Literal["mistake", "caption", "skip"] = "mistake"
    prices: str = ""
    is_limit_given: bool = True
