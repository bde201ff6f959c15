"""The terms of asking that were given last for OUT, so that a run which is not told them keeps to them.

They lie beside the paid answers: like these they are no part of the dataset.

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
    """`calls/terms.json`. A `budget` of None is none; `prices` is as in `JudgeBudget`.

    `plan_sha256` is of the plan that they were given for; "" where an older version noted them.
    """

    budget: Decimal | None = None
    in_batches: bool = False
    prices: str = ""
    plan_sha256: str = ""

    @staticmethod
    def read(out: Storage) -> RecordedBudget | None:
        """What is noted; None where nothing is. Raises UsageError for a note that is damaged."""
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
                f"{out.display_uri}/{TERMS} is damaged ({error!r}); delete it, and give --budget-usd anew"
            ) from error
        return kept

    def belongs_to(self, out: Storage) -> bool:
        """Whether they were given for the plan in OUT, not for another dataset whose answers were copied."""
        planned = _planned(out)
        return planned is not None and self.plan_sha256 in ("", planned)


def _planned(out: Storage) -> str | None:
    """The sha256 of the plan in OUT; None where there is none."""
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
    """Note what counts from now on for this plan, where it is not what is noted, and where a bound or none was told."""
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
    """US dollars that were spent on OUT by all that is stored there; None where nothing is, or it cannot be read."""
    try:
        record = BudgetRecord.read(out)
        if record:
            return record.spent
        answers = StoredAnswers(out)
    except JudgeStopped:
        return None
    return answers.spent if answers.count else None


def describe_budget(out: Storage, judge_budget: JudgeBudget) -> str:
    """Who is asked, how, and how much is spent on OUT at most, for a line before the first question."""
    how = "in batches" if judge_budget.in_batches else "one by one"
    bound = (
        "without a bound: there is no --budget-usd"
        if judge_budget.budget is None
        else f"up to ${judge_budget.budget.normalize():f} in all"
    )
    price = judge_budget.price
    into, back = ((usd * _MILLION).normalize() for usd in (price.input, price.output))
    prices = (
        f", by the table of --prices (${into:f} in, ${back:f} out, a million tokens)" if judge_budget.prices else ""
    )
    try:
        record = BudgetRecord.read(out)
    except JudgeStopped:
        record = None  # told when the asking begins
    spent = f"; ${record.spent:,.4f} is spent" if record and record.spent else ""
    return f"{price.model} is asked, {how}, {bound}{prices}{spent}"
