"""The smallest budget that can decide a clip: its description and its verification at the highest cost."""

from __future__ import annotations

from decimal import ROUND_UP, Decimal

from nextscene.common.errors import DamagedRecord, UsageError
from nextscene.common.storage import Storage
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.judge.base import Question
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.key_check import has_stored_answers
from nextscene.judge.request_builder import RequestBuilder
from nextscene.shards.format.manifest import Manifest

_CAPTION = "x" * 120  # bytes: the length of captions in docs/judge.md
_SCENE = "x" * 200
_STEP = Decimal("0.001")


def minimum_budget(settings: ClaudeConfig, judge_budget: JudgeBudget) -> Decimal:
    """Return the smallest budget in US dollars, rounded up to a tenth of a cent."""
    from nextscene.judge.api.client import worst_cost  # here, because it loads the SDK

    requests, question = RequestBuilder(settings, judge_budget.price), Question("", _CAPTION)
    calls = requests.describe(question, ()), requests.verify(question, _SCENE)
    worst = sum((worst_cost(judge_budget.price, call, judge_budget.in_batches) for call in calls), Decimal(0))
    return worst.quantize(_STEP, ROUND_UP)


def check_budget(out: Storage, settings: ClaudeConfig, judge_budget: JudgeBudget) -> None:
    """Raise UsageError for a budget that cannot decide a clip, before anything is paid for.

    Accept any budget if answers are stored, because no others may be needed, and for a complete dataset.
    """
    if judge_budget.budget is None or judge_budget.budget >= (least := minimum_budget(settings, judge_budget)):
        return
    if not has_stored_answers(out) and not _is_complete(out):
        raise UsageError(
            f"`budget_usd` {judge_budget.budget:f} decides no clip: a description and a verification may cost"
            f" ${least:f} with {judge_budget.price.model}; give {least:f} at least"
        )


def _is_complete(out: Storage) -> bool:
    try:
        return Manifest.read(out).complete
    except (FileNotFoundError, DamagedRecord):
        return False
