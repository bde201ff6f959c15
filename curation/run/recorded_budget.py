"""The budget and the way of asking that were last given for OUT; a run without these settings uses them again.

They are stored with the paid answers and, like these, are not part of the dataset.

Tested in tests/pipelines/cli/test_begun_dataset.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal

from nextscene.common.errors import UsageError
from nextscene.common.hashing import file_sha256
from nextscene.common.storage import Storage
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.recorded_config import DamagedConfig, RecordedConfig
from nextscene.judge.errors import JudgeStopped, JudgeUsageError
from nextscene.judge.spending.budget_record import BudgetRecord
from nextscene.judge.spending.prices import Prices
from nextscene.judge.spending.stored_answers import StoredAnswers
from nextscene.shards.format.layout import PLAN, TERMS

_MILLION = 1_000_000


@dataclass(frozen=True)
class RecordedBudget:
    """The contents of `calls/terms.json`. A `budget` of None means no limit; `prices` is as in `JudgeBudget`.

    `plan_sha256` identifies the plan that the budget was given for; "" in a record of an older version.
    """

    budget: Decimal | None = None
    in_batches: bool = False
    prices: str = ""
    plan_sha256: str = ""

    @staticmethod
    def read(out: Storage) -> RecordedBudget | None:
        """Return the record; None if there is none. Raise UsageError if the record is damaged."""
        try:
            value = json.loads(out.read(TERMS))
            budget, in_batches = value["budget_usd"], value["batches"]
            kept = RecordedBudget(
                None if budget is None else Decimal(budget),
                bool(in_batches),
                str(value.get("prices", "")),
                str(value.get("plan_sha256", "")),
            )
            if kept.budget is not None and not (kept.budget.is_finite() and kept.budget > 0):
                raise ValueError(f"a budget of {budget}")
            if kept.prices:
                Prices.parse(kept.prices.encode(), TERMS)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError, JudgeUsageError) as error:
            raise UsageError(
                f"{out.display_uri}/{TERMS} is damaged ({error!r}); delete it, and give `budget_usd` anew"
            ) from error
        return kept

    def belongs_to(self, out: Storage) -> bool:
        """Return whether the budget was given for the plan in OUT, not for a dataset whose answers were copied."""
        planned = _planned(out)
        return planned is not None and self.plan_sha256 in ("", planned)


def _planned(out: Storage) -> str | None:
    """Return the sha256 of the plan in OUT; None if there is none."""
    try:
        if recorded := RecordedConfig.read(out):
            return recorded.plan_sha256
    except DamagedConfig:
        pass
    try:
        return file_sha256(out, PLAN)
    except FileNotFoundError:
        return None


def record_budget(out: Storage, judge_budget: JudgeBudget, plan_sha256: str) -> None:
    """Record the budget for this plan, if the user gave a limit or asked for no limit, and the record differs."""
    now = RecordedBudget(judge_budget.budget, judge_budget.in_batches, judge_budget.prices, plan_sha256)
    if judge_budget.is_limit_given and RecordedBudget.read(out) != now:
        noted = {
            "budget_usd": None if now.budget is None else str(now.budget),
            "batches": now.in_batches,
            "prices": now.prices,
            "plan_sha256": now.plan_sha256,
        }
        out.write(TERMS, json.dumps(noted).encode())


def spent_so_far(out: Storage) -> Decimal | None:
    """Return the US dollars spent on OUT by the records there; None if nothing is stored or it cannot be read."""
    try:
        record = BudgetRecord.read(out)
        if record:
            return record.spent
        answers = StoredAnswers(out)
    except JudgeStopped:
        return None
    return answers.spent if answers.count else None


def describe_budget(out: Storage, judge_budget: JudgeBudget) -> str:
    """Return a line to show before the first question: the model, the way of asking, the limit and the prices."""
    how = "in batches" if judge_budget.in_batches else "one by one"
    limit = (
        "without a limit: there is no `budget_usd`"
        if judge_budget.budget is None
        else f"up to ${judge_budget.budget.normalize():f} in all"
    )
    price = judge_budget.price
    into, back = ((usd * _MILLION).normalize() for usd in (price.input, price.output))
    prices = (
        f", by the table of `prices` (${into:f} in, ${back:f} out, a million tokens)" if judge_budget.prices else ""
    )
    try:
        record = BudgetRecord.read(out)
    except JudgeStopped:
        record = None  # reported when the asking begins
    spent = f"; ${record.spent:,.4f} is spent" if record and record.spent else ""
    return f"{price.model} is asked, {how}, {limit}{prices}{spent}"
