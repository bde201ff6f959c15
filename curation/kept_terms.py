"""The budget and the way of asking that were given last for OUT, so that a run which is not told them keeps to them.

They lie beside the paid answers: like these they are no part of the dataset.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal

from curation.errors import UsageMistake
from curation.terms import Terms
from judge.budget_record import BudgetRecord
from judge.errors import JudgeStopped
from shards.layout import TERMS
from shards.storage import Storage


@dataclass(frozen=True)
class KeptTerms:
    """`calls/terms.json`. A `budget` of None is none."""

    budget: Decimal | None = None
    in_batches: bool = False

    @staticmethod
    def read(out: Storage) -> KeptTerms:
        """What is noted, or no budget and no batches. Raises UsageMistake for a note that is damaged."""
        try:
            value = json.loads(out.read(TERMS))
            budget, in_batches = value["budget_usd"], value["batches"]
            kept = KeptTerms(None if budget is None else Decimal(budget), bool(in_batches))
            if kept.budget is not None and not (kept.budget.is_finite() and kept.budget > 0):
                raise ValueError(f"a budget of {budget}")
        except FileNotFoundError:
            return KeptTerms()
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise UsageMistake(
                f"{out.shown}/{TERMS} is damaged ({error!r}); delete it, and give --budget-usd anew"
            ) from error
        return kept


def keep_terms(out: Storage, terms: Terms) -> None:
    """Note what counts from now on, where it is not what is noted."""
    now = KeptTerms(terms.budget, terms.in_batches)
    if KeptTerms.read(out) != now:
        budget = None if now.budget is None else str(now.budget)
        out.write(TERMS, json.dumps({"budget_usd": budget, "batches": now.in_batches}).encode())


def in_words(out: Storage, terms: Terms) -> str:
    """Who is asked, how, and how much is spent on OUT at most, for a line before the first question."""
    how = "in batches" if terms.in_batches else "one by one"
    bound = (
        "without a bound: there is no --budget-usd"
        if terms.budget is None
        else f"up to ${terms.budget.normalize():f} in all"
    )
    try:
        record = BudgetRecord.read(out)
    except JudgeStopped:
        record = None  # told when the asking begins
    spent = f"; ${record.spent:,.4f} is spent" if record and record.spent else ""
    return f"{terms.price.model} is asked, {how}, {bound}{spent}"
