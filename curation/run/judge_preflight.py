"""Checks that a run can ask the judge `claude`, made before the run changes anything.

Tested in tests/curation/run/test_asking_stopped.py.
"""

from __future__ import annotations

from collections.abc import Collection

from nextscene.common.errors import DamagedRecord, UsageError
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.plan import Plan
from nextscene.curation.run.existing_plan import check_settings
from nextscene.curation.run.minimum_budget import check_budget
from nextscene.curation.run.prepare import identity_in
from nextscene.curation.run.unit_judge import patience
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sources import Source
from nextscene.judge.api.api_key import check_key
from nextscene.judge.errors import JudgeUsageError
from nextscene.judge.key_check import check_key_accepted
from nextscene.shards.format.layout import CONFIG


def preflight(
    out: Storage,
    source: Source,
    config: BuildConfig,
    judge_budget: JudgeBudget | None,
    retry: Collection[str],
    known: str,
) -> str:
    """Return the reason why the judge cannot be asked, "" if it can: `known`, or a missing key. Write nothing.

    The caller raises the returned reason once the judge has to be asked. Raise UsageError if the judge certainly has
    to be asked and cannot be, for settings that OUT was not begun with, for a budget that cannot decide a clip, and for
    a key that the API does not accept.
    """
    check_settings(out, source, identity_in(out, config))
    why = known or _missing_key(out)
    is_to_ask = bool(retry) or not is_finished(out, config)
    if why and is_to_ask:
        raise UsageError(why)
    if judge_budget:
        check_budget(out, config.claude, judge_budget)
        if is_to_ask:
            check_key_accepted(out, config.claude.model, patience(config.limits))
    return why


def _missing_key(out: Storage) -> str:
    try:
        is_begun = out.stat(CONFIG) is not None  # then OUT would refuse another judge
        check_key(instead="" if is_begun else ", or use `judge` film or `judge` none")
    except JudgeUsageError as mistake:
        return str(mistake)
    return ""


def is_finished(out: Storage, config: BuildConfig) -> bool:
    """Return whether every clip of the plan in OUT is decided and sealed."""
    try:
        return CommittedState.read(out, config.units_per_shard).complete(Plan(out, config))
    except (FileNotFoundError, DamagedRecord):
        return False
