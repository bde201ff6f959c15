"""Restoration of a damaged plan or `config.toml` of OUT, by planning the source again.

Tested in tests/curation/sealing/test_repair.py.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import Any

from nextscene.common.errors import DamagedRecord, UsageError
from nextscene.common.hashing import file_sha256
from nextscene.common.scratch import scratch_folder
from nextscene.common.storage import Storage
from nextscene.curation.config import CUT_VERSION, BuildConfig, as_tables, fingerprint
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.plan import OPTIONAL_COLUMNS, Plan
from nextscene.curation.plan_writer import write_plan
from nextscene.curation.recorded_config import DamagedConfig, RecordedConfig
from nextscene.curation.run.existing_plan import has_only_plan
from nextscene.curation.sources import Source
from nextscene.shards.format.layout import PLAN
from nextscene.shards.format.manifest import Manifest

_log = logging.getLogger(__name__)

_FORMS = (frozenset({"scene"}), frozenset({"scene", "digest"}), OPTIONAL_COLUMNS)
"""The optional columns that plans of this and older versions have; the oldest, which needs no contents, first."""


def rebuild_config(
    out: Storage,
    source: Source,
    config: BuildConfig,
    judge_budget: JudgeBudget | None,
    identity_settings: dict[str, Any],
    damage: DamagedConfig,
) -> RecordedConfig | None:
    """Publish and return the contents that the damaged `config.toml` must have had; return None if no work was done.

    Raise `damage` if it cannot be shown that OUT was made with this run's settings.
    """
    if has_only_plan(out):
        _log.warning("%s; nothing was decided, so it is planned anew", damage.why)
        return None
    known = _known_fingerprint(out)
    try:
        plan_sha256 = file_sha256(out, PLAN)
        with scratch_folder() as folder:
            same_plan = _replan_matches(Storage.at(folder), source, config, judge_budget, plan_sha256)
    except FileNotFoundError:
        same_plan = False
    if not same_plan or known not in ("", fingerprint(identity_settings)):
        raise damage
    _log.warning("%s; plan and settings of this run are those of what was done, so it is written anew", damage.why)
    recorded = RecordedConfig(identity_settings, source.recorded_uri, plan_sha256, as_tables(config), CUT_VERSION)
    recorded.publish(out)
    return recorded


def _known_fingerprint(out: Storage) -> str:
    """Return the manifest's fingerprint of the settings that OUT was made with; "" if there is no readable manifest."""
    try:
        return Manifest.read(out).fingerprint
    except (FileNotFoundError, DamagedRecord):
        return ""


def restore_plan(
    out: Storage, source: Source, config: BuildConfig, judge_budget: JudgeBudget | None, recorded: RecordedConfig
) -> None:
    """Plan the source again if the plan is missing or damaged, and publish it if its sha256 is the recorded one.

    Raise UsageError if the plan was changed, or if planning gives a different plan.
    """
    try:
        if file_sha256(out, PLAN) == recorded.plan_sha256:
            return
        Plan(out, config)
    except FileNotFoundError:
        how = "is missing"
    except DamagedRecord as damage:
        how = f"is damaged ({damage})"
    else:
        raise UsageError(
            f"`out` {out.display_uri}: {PLAN} was changed after it was made; restore it, or choose another `out`"
        )
    with scratch_folder() as folder:
        draft = Storage.at(folder)
        if not _replan_matches(draft, source, config, judge_budget, recorded.plan_sha256):
            raise UsageError(
                f"`out` {out.display_uri}: {PLAN} {how}, and the source does not give the same again; restore it, or"
                " choose another `out`"
            )
        _log.warning("%s %s; the source gives the same again", PLAN, how)
        with draft.open(PLAN) as made, out.atomic_writer(PLAN) as file:
            shutil.copyfileobj(made, file, 1 << 20)


def _replan_matches(
    draft: Storage, source: Source, config: BuildConfig, judge_budget: JudgeBudget | None, plan_sha256: str
) -> bool:
    """Return whether the source gives the plan with this sha256, and if so leave that plan in `draft`.

    Try the columns of older versions too. If the run does not say what happens to clips without a caption, try both
    ways.
    """
    ways = [judge_budget]
    if judge_budget and judge_budget.uncaptioned == "mistake":
        ways = [replace(judge_budget, uncaptioned="caption"), replace(judge_budget, uncaptioned="skip")]
    return any(write_plan(draft, source, config, way, form) == plan_sha256 for way in ways for form in _FORMS)
