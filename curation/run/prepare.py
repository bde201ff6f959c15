"""How a run begins: the plan and configuration that stand in OUT, made once and from then on only compared."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from nextscene.common import ffmpeg
from nextscene.common.config_loader import flat
from nextscene.common.errors import DamagedRecord, UsageError
from nextscene.common.hashing import file_sha256
from nextscene.common.scratch import scratch_folder
from nextscene.common.storage import Storage
from nextscene.curation.config import CUT_VERSION, LEGACY_VALUES, BuildConfig, as_tables, fingerprint, legacy_value
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.plan import Plan, write_plan
from nextscene.curation.recorded_config import CUT, SCHEMA, DamagedConfig, RecordedConfig
from nextscene.curation.rules.registry import active_rules
from nextscene.curation.run.cut_version import discard_clips, needs_recut
from nextscene.curation.run.recorded_budget import record_budget
from nextscene.curation.run.source_moved import compare_moved
from nextscene.curation.sources import Source
from nextscene.judge.claude import CLAUDE
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.registry import JUDGES, is_paid, settings_of
from nextscene.judge.spending.answer_index import INDEX
from nextscene.judge.spending.answer_segments import CALLS
from nextscene.judge.spending.budget_record import ACCOUNT
from nextscene.judge.spending.call_journal import JOURNALS
from nextscene.judge.spending.stored_answers import StoredAnswers
from nextscene.shards.format.layout import (
    CHECKSUMS,
    CONFIG,
    CRASHES,
    MANIFEST,
    PARTS,
    PLAN,
    REPORT,
    RETRY,
    SUMMARY,
    TERMS,
    UNIT_LEDGERS,
)
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import sealed_shards

_PROMPTS = "prompts."
_log = logging.getLogger(__name__)


def with_recorded_prompt_version(out: Storage, config: BuildConfig) -> BuildConfig:
    """The configuration with the version of the prompts that OUT was begun with. Raises UsageError."""
    try:
        recorded = RecordedConfig.read(out)
    except DamagedConfig:
        return config
    if recorded is None:
        return config
    if CLAUDE.settings not in (config.judge_kind.settings, settings_of(recorded.identity_settings.get("judge"))):
        return config
    version = recorded.identity_settings.get("claude.prompt_version", LEGACY_VALUES["claude.prompt_version"])
    return replace(config, claude=replace(config.claude, prompt_version=version))


def prepare(
    out: Storage, source: Source, config: BuildConfig, judge_budget: JudgeBudget | None = None, retry: bool = False
) -> RecordedConfig:
    """The plan in OUT, written now if there is none. Raises UsageError if OUT holds the plan of another run.

    What an older version of the cut left of an unfinished dataset is discarded.
    """
    active_rules(config.rules, needs_frames=False)  # an unknown one is refused before any work
    identity_settings = config.identity_settings(ffmpeg.build())
    try:
        _note_if_moved(out, source, config, identity_settings)
        recorded = find_existing_plan(out, source, identity_settings)
    except DamagedConfig as damage:
        recorded = _rebuild_config(out, source, config, judge_budget, identity_settings, damage)
    if recorded is not None:
        _restore_plan(out, source, config, judge_budget, recorded)
    if recorded is not None and judge_budget is not None and differs_on_uncaptioned(out, config, judge_budget):
        recorded = None
    if recorded is None:
        if out.stat(CONFIG) is not None:
            for earlier in (CHECKSUMS, MANIFEST, SUMMARY, REPORT, RETRY, CONFIG):  # its commit last
                out.delete(earlier)
        plan_sha256 = write_plan(out, source, config, judge_budget)
        if judge_budget:
            record_budget(
                out, judge_budget, plan_sha256
            )  # before the plan counts: what goes on with it needs the budget
        recorded = RecordedConfig(identity_settings, source.display_uri, plan_sha256, as_tables(config), CUT_VERSION)
        recorded.publish(out)
        return recorded
    if needs_recut(out, config, recorded.cut_version, retry):
        if not has_only_plan(out):
            discard_clips(out)
        out.delete(CHECKSUMS)
        recorded = replace(recorded, identity_settings=identity_settings, config=as_tables(config))
        recorded.publish(out)
    return recorded


def _note_if_moved(out: Storage, source: Source, config: BuildConfig, identity_settings: dict[str, Any]) -> None:
    """Record where the source lies now. Raises as `moved`."""
    if recorded := moved(out, source, config, identity_settings):
        out.delete(CHECKSUMS)
        recorded.publish(out)


def moved(
    out: Storage, source: Source, config: BuildConfig, identity_settings: dict[str, Any]
) -> RecordedConfig | None:
    """Return OUT's record with the place of a source that has moved, if it is the one that was planned.

    None where it has not moved, or something else is not as it was. Writes nothing into OUT. Raises UsageError for
    another source.
    """
    recorded = RecordedConfig.read(out)
    if (
        recorded is None
        or recorded.source == source.display_uri
        or _differences(recorded, identity_settings, recorded.source)
    ):
        return None
    if is_paid(recorded.identity_settings.get("judge")) and has_only_plan(out):
        return None  # it is planned anew
    try:
        Plan(out, config)
    except (FileNotFoundError, DamagedRecord):
        return None  # and then nothing says what was planned
    try:
        different, others = compare_moved(out, source, config.judge)
    except UsageError:
        return None  # it could not be planned at all
    if different:
        raise UsageError(
            f"--out {out.display_uri} was made of {recorded.source}, and {source.display_uri} is another source:"
            f" {different}. Give the same source, or choose another --out"
        )
    stay = f"; as they were planned stay {others}" if others else ""
    _log.warning(
        "the source has moved from %s to %s; its clips are the same%s", recorded.source, source.display_uri, stay
    )
    return replace(recorded, source=source.display_uri)


def _rebuild_config(
    out: Storage,
    source: Source,
    config: BuildConfig,
    judge_budget: JudgeBudget | None,
    identity_settings: dict[str, Any],
    damage: DamagedConfig,
) -> RecordedConfig | None:
    """What the damaged `config.toml` must have said, published; None where nothing was done by it.

    Raises `damage` where this run's settings are not shown to be those that OUT was made with.
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
    recorded = RecordedConfig(identity_settings, source.display_uri, plan_sha256, as_tables(config), CUT_VERSION)
    recorded.publish(out)
    return recorded


def _known_fingerprint(out: Storage) -> str:
    """The fingerprint of the settings that OUT was made with, as the manifest says; "" where there is none."""
    try:
        return Manifest.read(out).fingerprint
    except (FileNotFoundError, DamagedRecord):
        return ""


def _restore_plan(
    out: Storage, source: Source, config: BuildConfig, judge_budget: JudgeBudget | None, recorded: RecordedConfig
) -> None:
    """Derives a plan that is gone or cut short from the source again, if that gives the very same.

    Raises UsageError for one that was changed, or cannot be had again.
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
            f"--out {out.display_uri}: {PLAN} was changed after it was made; restore it, or choose another --out"
        )
    with scratch_folder() as folder:
        draft = Storage.at(folder)
        if not _replan_matches(draft, source, config, judge_budget, recorded.plan_sha256):
            raise UsageError(
                f"--out {out.display_uri}: {PLAN} {how}, and the source does not give the same again; restore it, or"
                " choose another --out"
            )
        _log.warning("%s %s; the source gives the same again", PLAN, how)
        with draft.open(PLAN) as made, out.atomic_writer(PLAN) as file:
            shutil.copyfileobj(made, file, 1 << 20)


def _replan_matches(
    draft: Storage, source: Source, config: BuildConfig, judge_budget: JudgeBudget | None, plan_sha256: str
) -> bool:
    """Whether the source gives the plan of this sha256, which is then in `draft`. Older versions had no digests.

    What was to become of clips without a caption need not be told again: either way is tried.
    """
    ways = [judge_budget]
    if judge_budget and judge_budget.uncaptioned == "mistake":
        ways = [replace(judge_budget, uncaptioned="caption"), replace(judge_budget, uncaptioned="skip")]
    forms = (False, True)  # the first reads no contents
    return any(write_plan(draft, source, config, way, form) == plan_sha256 for way in ways for form in forms)


def differs_on_uncaptioned(out: Storage, config: BuildConfig, judge_budget: JudgeBudget) -> bool:
    """Whether a plan, by which nothing was done yet, does with clips without a caption what is not wanted now.

    Raises UsageError for one by which something was done.
    """
    plan = Plan(out, config)
    skips, captions = (judge_budget.uncaptioned == "skip", judge_budget.uncaptioned == "caption")
    if not (skips and plan.uncaptioned) and not (captions and plan.skipped):
        return False
    if has_only_plan(out):
        return True
    flag, was = ("--skip-uncaptioned", "--caption-missing") if skips else ("--caption-missing", "--skip-uncaptioned")
    count = plan.uncaptioned or plan.skipped
    raise UsageError(
        f"--out {out.display_uri} was planned as with {was}, for {count:,} clips without a caption;"
        f" leave {flag} out, or choose another --out"
    )


def find_existing_plan(out: Storage, source: Source, identity_settings: dict[str, Any]) -> RecordedConfig | None:
    """The plan in OUT that a run with these settings goes on with; None where it is to make one.

    Raises UsageError, naming each setting in which this run differs from the one that OUT was planned for.
    """
    recorded = RecordedConfig.read(out)
    if recorded is None:
        return None
    different = _differences(recorded, identity_settings, source.display_uri)
    if not different:
        return recorded
    if is_paid(recorded.identity_settings.get("judge")) and has_only_plan(out):
        return None  # it was asked in vain from the first question on, of a model that is not there perhaps
    raise UsageError(
        f"--out {out.display_uri} holds another plan: {'; '.join(different.values())}. {_remedy(different.keys())},"
        " or choose another --out"
    )


def check_settings(out: Storage, source: Source, identity_settings: dict[str, Any]) -> None:
    """Raise as `find_existing_plan` where a setting differs; where only the source does, it may have moved."""
    with suppress(DamagedConfig):
        recorded = RecordedConfig.read(out)
        if recorded and _differences(recorded, identity_settings, recorded.source):
            find_existing_plan(out, source, identity_settings)


def _remedy(different: Collection[str]) -> str:
    if "ffmpeg" in different:
        return "Install the imageio-ffmpeg that it was begun with"
    if set(different) <= {_PROMPTS, SCHEMA}:
        return "Use the version of this program that it was begun with"
    return "Leave out what differs, to go on with what it was begun with"


def _differences(recorded: RecordedConfig, identity_settings: dict[str, Any], source: str) -> dict[str, str]:
    """What a run with these settings and this source would do otherwise, in the order in which a person would look.

    What follows from another judge, or from another version of the prompts, is not told beside that.
    """
    before, now = {**recorded.identity_settings, "source": recorded.source}, {**identity_settings, "source": source}
    followers: tuple[str, ...] = (CUT,)  # which is no setting
    if before.get("judge") != now.get("judge"):
        followers += (_PROMPTS, *(f"{kind.settings}." for kind in JUDGES.values() if kind.settings))
    elif _value(before, "claude.prompt_version") != _value(now, "claude.prompt_version"):
        followers += (_PROMPTS,)
    names = [name for name in _in_order(before | now) if not name.startswith(followers)]
    differ = [name for name in names if _value(before, name) != _value(now, name)]
    told = {name: f"{name} is {_value(now, name)}, was {_value(before, name)}" for name in differ}
    prompts = [name.removeprefix(_PROMPTS) for name in told if name.startswith(_PROMPTS)]
    if prompts:
        told = {name: text for name, text in told.items() if not name.startswith(_PROMPTS)}
        told[_PROMPTS] = f"the prompts {', '.join(prompts)} are those of another version"
    return told


def _in_order(named: dict[str, Any]) -> Iterator[str]:
    """The names of what decides a dataset: source and judge, the settings, the rest."""
    order = dict.fromkeys(["source", *flat(BuildConfig())])
    yield from (name for name in order if name in named)
    yield from sorted(named.keys() - order.keys(), key=lambda name: (name in ("ffmpeg", SCHEMA), name))


def _value(decided: dict[str, Any], name: str) -> Any:
    """What a run has of a setting: one that is newer than it is as it was before."""
    return decided[name] if name in decided else legacy_value(name)


def has_only_plan(out: Storage) -> bool:
    """Whether OUT holds a plan at most: nothing was decided by it, and no answer was paid for."""
    done = sealed_shards(out) or any(out.files(folder) for folder in (UNIT_LEDGERS, PARTS, CRASHES))
    try:
        asked = done or StoredAnswers(out).count
    except JudgeStopped:
        return False
    left = (entry for entry in out.files(CALLS, recursive=True) if entry.path not in (ACCOUNT, INDEX, TERMS))
    return not asked and all(entry.path.startswith(JOURNALS) and not entry.size for entry in left)
