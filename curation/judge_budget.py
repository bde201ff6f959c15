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
    """Price, budget and way of asking. They do not decide the dataset: each run may have its own.

    `uncaptioned` says what happens to clips without a caption when a plan is made: they are a mistake, captioned by
    the judge first, or left out. In an existing plan this is already decided. `prices` is the text of a table
    of the user's; "" stands for this program's own table. `is_limit_given` is False if nobody said how much may be
    spent.
    """

    price: Price
    budget: Decimal | None = None
    in_batches: bool = False
    uncaptioned: Literal["mistake", "caption", "skip"] = "mistake"
    prices: str = ""
    is_limit_given: bool = True
