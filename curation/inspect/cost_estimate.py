"""What a run would pay for: every clip that is not decided yet, less the answers that are stored already.

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
from nextscene.curation.plan import Plan, PlannedClip
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
    """What is left to be done in OUT, and each case's bill for it.

    Of the `clips` that are not decided `missing` have no file, and `flawed` ones end for their caption or for having
    none: they cost nothing. `captioning` is the part of each bill that captions the `uncaptioned` ones. `passed_over`
    is as in `Summary`.
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
    """Asks nothing, and writes nothing into OUT: where nothing is planned there, it plans on the local disk.

    Raises UsageError for what planning would refuse, but for clips without a caption, whose price it is there to say.
    """
    if planned:
        return _estimated(Plan(out, config), out, config, judge_budget.price, cases)
    with scratch_folder() as folder:
        draft = Storage.at(folder)
        willing = judge_budget if judge_budget.uncaptioned == "skip" else replace(judge_budget, uncaptioned="caption")
        write_plan(draft, source, config, willing, digests=False)
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
    """The clip with what is known of it; decided but not cut, it has no round left."""
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
