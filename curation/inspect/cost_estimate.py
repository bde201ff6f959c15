"""Estimate of what a run would pay: for all clips that are not decided yet, without answers already stored.

Tested in tests/pipelines/cli/test_estimate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from nextscene.common.scratch import scratch_folder
from nextscene.common.storage import Storage
from nextscene.curation.captioning_cost import UncaptionedClips, frames_to_caption
from nextscene.curation.config import BuildConfig
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.plan import OPTIONAL_COLUMNS, Plan, PlannedClip
from nextscene.curation.plan_writer import write_plan
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sealing.remaining import remaining
from nextscene.curation.sources import MISSING, Source
from nextscene.curation.stages.replay import Replay
from nextscene.judge.spending.estimate import Assumptions, Bill, Estimator, PendingClip
from nextscene.judge.spending.prices import Price
from nextscene.judge.spending.stored_answers import StoredAnswers


@dataclass(frozen=True)
class Estimate:
    """The work that is left in OUT, and each case's bill for it.

    `clips` are not decided. `missing` of them have no file, and `flawed` ones are decided by a bad or missing caption
    alone: these cost nothing. `captioning` is the part of each bill for captioning the `uncaptioned` clips.
    `passed_over` is as in `BuildSummary`.
    """

    clips: int
    missing: int
    flawed: int
    uncaptioned: int
    passed_over: dict[str, int] | None
    bills: dict[str, Bill]
    captioning: dict[str, Bill]


def estimate(
    source: Source,
    out: Storage,
    config: BuildConfig,
    planned: bool,
    judge_budget: JudgeBudget,
    cases: Mapping[str, Assumptions],
) -> Estimate:
    """Return the estimate. Ask nothing and write nothing into OUT: if there is no plan yet, plan on the local disk.

    Raise UsageError for a source that planning would refuse. Accept clips without a caption, because the estimate is to
    tell their price.
    """
    if planned:
        return _estimated(Plan(out, config), out, config, judge_budget.price, cases)
    with scratch_folder() as folder:
        draft = Storage.at(folder)
        willing = judge_budget if judge_budget.uncaptioned == "skip" else replace(judge_budget, uncaptioned="caption")
        write_plan(draft, source, config, willing, OPTIONAL_COLUMNS - {"digest"})
        return _estimated(Plan(draft, config), draft, config, judge_budget.price, cases)


def _estimated(
    plan: Plan, out: Storage, config: BuildConfig, price: Price, cases: Mapping[str, Assumptions]
) -> Estimate:
    estimators = {case: Estimator(config.claude, price, assumed) for case, assumed in cases.items()}
    bills = dict.fromkeys(cases, Bill())
    uncaptioned = UncaptionedClips(config)
    clips = missing = flawed = 0
    stored = StoredAnswers(out)
    for clip in _undecided(plan, out, config):
        clips += 1
        if clip.flaw or clip.size == MISSING:
            flawed += bool(clip.flaw)
            missing += not clip.flaw
            continue
        ahead = _far(stored, config, price, clip)
        if not (clip.caption or ahead.captioned):
            uncaptioned.add(clip.name)
        for case, estimator in estimators.items():
            bills[case] += estimator.bill(ahead)
    captioning = {case: uncaptioned.bill(price, assumed) for case, assumed in cases.items()}
    return Estimate(clips, missing, flawed, uncaptioned.count, plan.passed_over, bills, captioning)


def _undecided(plan: Plan, out: Storage, config: BuildConfig) -> Iterator[PlannedClip]:
    for shard in remaining(plan, CommittedState.read(out, config.units_per_shard), out):
        for unit in shard.todo:
            yield from (clip for clip in unit.clips if unit.redoes(clip))


def _far(stored: StoredAnswers, config: BuildConfig, price: Price, clip: PlannedClip) -> PendingClip:
    """Return the clip with its progress by stored answers. One that is decided but not cut has no round left."""
    pictures = frames_to_caption(clip.name, config)
    if not stored.count:
        return PendingClip(clip.caption, pictures)
    replay = Replay(stored.get, config, price, clip)
    if replay.scene:
        return PendingClip(clip.caption, pictures, config.claude.rounds, captioned=True)
    described, verified = replay.count("describe"), replay.count("verify")
    return PendingClip(
        clip.caption, pictures, min(verified, described), described > verified, captioned=replay.count("caption") > 0
    )
