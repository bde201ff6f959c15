"""Preparation of OUT: the first run writes plan and configuration, later runs compare theirs with the recorded ones.

Tested in tests/curation/run/test_resume.py.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from nextscene.common import ffmpeg
from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.common.text import many
from nextscene.curation.config import CUT_VERSION, LEGACY_VALUES, BuildConfig, as_tables
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.plan import Plan
from nextscene.curation.plan_writer import write_plan
from nextscene.curation.recorded_config import DamagedConfig, RecordedConfig, schema_of, schema_of_shards
from nextscene.curation.rules.registry import active_rules
from nextscene.curation.run.cut_version import discard_clips, needs_recut
from nextscene.curation.run.existing_plan import find_existing_plan, has_only_plan
from nextscene.curation.run.recorded_budget import record_budget
from nextscene.curation.run.restore_plan import rebuild_config, restore_plan
from nextscene.curation.run.source_moved import find_moved_source
from nextscene.curation.sources import Source
from nextscene.judge.claude import CLAUDE
from nextscene.judge.registry import settings_of
from nextscene.shards.format.layout import CHECKSUMS, CONFIG, MANIFEST, REPORT, RETRY, SUMMARY

_log = logging.getLogger(__name__)


def with_recorded_prompt_version(out: Storage, config: BuildConfig) -> BuildConfig:
    """Return the configuration with the version of the prompts that OUT was begun with.

    If that record is damaged, return the configuration unchanged. Raise UsageError for other faults of the record.
    """
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


def identity_in(out: Storage, config: BuildConfig) -> dict[str, Any]:
    """Return what decides a dataset that this configuration builds in OUT; its schema stays that of OUT.

    If the record of OUT is damaged, its shards tell the schema. Raise UsageError for other faults of the record.
    """
    try:
        schema_version = schema_of(out)
    except DamagedConfig:
        schema_version = schema_of_shards(out)
    return config.identity_settings(ffmpeg.build(), schema_version)


def prepare(
    out: Storage, source: Source, config: BuildConfig, judge_budget: JudgeBudget | None = None, retry: bool = False
) -> RecordedConfig:
    """Return the record of the plan in OUT, written now if there is none. Raise UsageError if OUT holds another plan.

    Discard the clips of an unfinished dataset if an older version of the cut made them.
    """
    active_rules(config.rules, needs_frames=False)  # refuse an unknown rule before any work
    identity_settings = identity_in(out, config)
    try:
        _note_if_moved(out, source, config, identity_settings)
        recorded = find_existing_plan(out, source, identity_settings)
    except DamagedConfig as damage:
        recorded = rebuild_config(out, source, config, judge_budget, identity_settings, damage)
    if recorded is not None:
        restore_plan(out, source, config, judge_budget, recorded)
    if recorded is not None and judge_budget is not None and differs_on_uncaptioned(out, config, judge_budget):
        recorded = None
    if recorded is None:
        if out.stat(CONFIG) is not None:
            for earlier in (CHECKSUMS, MANIFEST, SUMMARY, REPORT, RETRY, CONFIG):  # CONFIG last: it commits the plan
                out.delete(earlier)
        plan_sha256 = write_plan(out, source, config, judge_budget)
        if judge_budget:
            # before the plan is committed: a run that continues it needs the budget
            record_budget(out, judge_budget, plan_sha256)
        recorded = RecordedConfig(identity_settings, source.recorded_uri, plan_sha256, as_tables(config), CUT_VERSION)
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
    """Record the new location of a source that has moved. Raise as `find_moved_source`."""
    if recorded := find_moved_source(out, source, config, identity_settings):
        out.delete(CHECKSUMS)
        recorded.publish(out)


def differs_on_uncaptioned(out: Storage, config: BuildConfig, judge_budget: JudgeBudget) -> bool:
    """Return whether the plan treats clips without a caption differently from what this run asks.

    Raise UsageError if it does and work on the plan has begun.
    """
    plan = Plan(out, config)
    skips, captions = (judge_budget.uncaptioned == "skip", judge_budget.uncaptioned == "caption")
    if not (skips and plan.uncaptioned) and not (captions and plan.skipped):
        return False
    if has_only_plan(out):
        return True
    name, was = ("`skip_uncaptioned`", "`caption_missing`") if skips else ("`caption_missing`", "`skip_uncaptioned`")
    count = plan.uncaptioned or plan.skipped
    raise UsageError(
        f"`out` {out.display_uri} was planned as with {was}, for {many(count, 'clip')} without a caption;"
        f" leave {name} out, or choose another `out`"
    )
