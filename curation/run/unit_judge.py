"""A run's judge: made from the configuration, and asked about units while the run holds the lock of OUT."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nextscene.common.errors import AskingEnded, LeftUndecided, RunStopped, UsageError
from nextscene.common.local_state import local_state
from nextscene.common.storage import Storage
from nextscene.curation.captioning_cost import frames_to_caption
from nextscene.curation.config import BuildConfig, RunLimits
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.outcome import UNDECIDED, ClipOutcome, Undecided
from nextscene.curation.plan import PlannedClip, Unit
from nextscene.curation.stages.describe import Decision, DescribedScene, describe_clips
from nextscene.curation.stages.replay import Replay, content_of
from nextscene.curation.stages.screen import ScreenResult
from nextscene.judge.api.api_identity import ApiIdentity
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.base import Judge, Question, charge_once
from nextscene.judge.errors import JudgeStopped, JudgeUsageError, OverBudget
from nextscene.judge.judge_kind import JudgeKind
from nextscene.judge.run_ownership import RunOwnershipCheck
from nextscene.judge.spending.call_journal import JOURNALS
from nextscene.judge.spending.estimate import CASES, Estimator, PendingClip
from nextscene.shards.format.layout import UnitName

if TYPE_CHECKING:
    from nextscene.judge.call_progress import CallProgress
    from nextscene.judge.spending.cached_client import CachedClient

_CLIPS_A_CALL = 2
_PICTURED_CLIPS = 2000


class UnitJudge:
    """The judge of whole units. Each instance serves one event loop."""

    def __init__(
        self,
        config: BuildConfig,
        judge_budget: JudgeBudget | None,
        out: Storage,
        run_id: str,
        api_identity: ApiIdentity | None = None,
    ) -> None:
        self._api_identity = api_identity
        self._config = config
        self._terms = judge_budget
        self._out = out
        self._run_id = run_id
        self._client: CachedClient | None = None
        self._judge: Judge | None = None
        self._estimator: Estimator | None = None
        self._making = asyncio.Lock()
        self._under_way: dict[UnitName, asyncio.Task[Decision]] = {}

    async def decide(
        self, unit: Unit, screened: Sequence[ScreenResult], counted: Callable[[int], None] = lambda _: None
    ) -> Decision:
        """Return a scene for each clip that passed the screen, None for the others, UNDECIDED if the asking has ended.

        If the unit is already being decided, for instance because the first reply was lost, wait for that decision.
        Call `counted` with the number of decided clips each time it grows.
        Raise StorageFault once all questions that were in progress have their answers.
        """
        name = unit.name
        if name not in self._under_way:
            self._under_way[name] = asyncio.create_task(self._decide(unit, screened, counted))
            self._under_way[name].add_done_callback(lambda _: self._under_way.pop(name))
        return await asyncio.shield(self._under_way[name])

    async def _decide(self, unit: Unit, screened: Sequence[ScreenResult], counted: Callable[[int], None]) -> Decision:
        scenes: list[DescribedScene | Undecided | None] = []
        ends: list[Exception] = []
        through = itertools.count(1)
        sample = unit.shard.revision if unit.redo else 0

        async def one(clip: PlannedClip, found: ScreenResult) -> DescribedScene | Undecided | None:
            scene = await self._scene(judge, clip, found, sample)
            counted(next(through))
            return scene

        try:
            judge = await self._ready()
            asked = await asyncio.gather(
                *(one(clip, found) for clip, found in zip(unit.clips, screened, strict=True)), return_exceptions=True
            )
            for scene in asked:
                if isinstance(scene, (JudgeUsageError, JudgeStopped)):
                    ends.append(scene)
                elif isinstance(scene, BaseException):
                    raise scene
                scenes.append(UNDECIDED if isinstance(scene, BaseException) else scene)
            if self._client:
                await self._client.flush()  # answers must be stored before their clip is committed
        except (JudgeUsageError, JudgeStopped) as end:
            return Decision([UNDECIDED] * len(unit.clips), _as_end_of_run(end))
        ends.sort(key=lambda end: isinstance(end, OverBudget))  # an error that ends all the asking goes first
        return Decision(_charge_each_answer_once(unit, scenes), _as_end_of_run(ends[0]) if ends else None)

    def report(self) -> CallProgress | None:
        """Return the progress of the calls; None if nothing is paid for."""
        return self._client.progress() if self._client else None

    async def end(self) -> None:
        """Ask nothing more. Wait a short time for calls in progress, and store their answers."""
        if self._client:
            await self._client.close()

    async def _scene(
        self, judge: Judge | None, clip: PlannedClip, found: ScreenResult, sample: int
    ) -> DescribedScene | Undecided | None:
        """Return the clip's scene, or None if it needs none, or UNDECIDED.

        `sample` is used only for a clip that has an outcome before it is asked about.
        """
        if found is None:
            return None
        if isinstance(found, ClipOutcome):
            return self._earlier_calls(clip, sample)
        if isinstance(found, str):
            return found
        question = Question(
            clip.clip_id,
            clip.caption,
            clip.preceding_caption,
            found.frames,
            clip.position,
            found.sample,
            found.earlier_frames,
            content_of(clip),
            clip.scene,
        )
        if self._client is None or self._terms is None or self._estimator is None:
            return await describe_clips(judge, question)
        bill = self._estimator.bill(PendingClip(clip.caption, frames_to_caption(clip.name, self._config)))
        with self._client.announce(clip.clip_id, bill.usd(self._terms.price, self._terms.in_batches)):
            return await describe_clips(judge, question)

    def _earlier_calls(self, clip: PlannedClip, sample: int) -> DescribedScene | None:
        """Return the calls already paid for a clip that ends without questions; None if there are none.

        An example is a clip whose file has disappeared since.
        """
        if self._client is None or self._terms is None or clip.flaw:
            return None
        asked = Replay(self._client.look_up, self._config, self._terms.price, clip, sample).calls
        calls = tuple(call for call in asked if call.answer.clip_id == clip.clip_id)
        return DescribedScene(clip.caption, calls=calls) if calls else None

    async def _ready(self) -> Judge | None:
        """Return the configured judge, made when it is first needed; None for `none`, which uses the caption itself."""
        async with self._making:
            kind = self._config.judge_kind
            if self._judge is None and not kind.pays:
                self._judge = kind.open(self._config.judge_settings)
            elif self._judge is None and self._terms:
                self._judge = await self._paid_judge(kind, self._terms)
            return self._judge

    async def _paid_judge(self, kind: JudgeKind, judge_budget: JudgeBudget) -> Judge | None:
        from nextscene.judge.spending.cached_client import CachedClient

        self._check_identity()
        ownership = RunOwnershipCheck(self._out, self._run_id)
        try:
            self._client = await CachedClient.open(
                self._out,
                local_state(self._out, JOURNALS),
                judge_budget.price,
                patience(self._config.limits),
                judge_budget.budget,
                judge_budget.in_batches,
                ownership.check,
            )
        except JudgeUsageError as mistake:  # in this host's environment, which may differ from the driver's
            raise JudgeUsageError(f"{socket.gethostname()}: {mistake}") from mistake
        self._estimator = Estimator(self._config.claude, judge_budget.price, CASES["expected"])
        return kind.open(self._config.judge_settings, judge_budget.price, self._client)

    def _check_identity(self) -> None:
        """Raise JudgeUsageError if this node's environment would ask in another way than the command's.

        A judge on a cluster has the environment of its node.
        """
        if wrong := self._api_identity.differences() if self._api_identity else []:
            raise JudgeUsageError(
                f"{' and '.join(wrong)} on the node {socket.gethostname()} is not what this command was started with;"
                " start Ray there with the same environment, or run the command there"
            )


def _as_end_of_run(end: Exception) -> RunStopped | UsageError:
    """Return the error that ends the run, given the error that ended the asking."""
    if isinstance(end, OverBudget):
        return LeftUndecided(str(end))
    return end if isinstance(end, UsageError) else AskingEnded(str(end))


def _charge_each_answer_once(
    unit: Unit, scenes: Sequence[DescribedScene | Undecided | None]
) -> list[DescribedScene | Undecided | None]:
    """Charge each answer to the clip that it was bought for; an older answer to the first clip that uses it."""
    charged: set[str] = set()
    return [
        replace(scene, calls=charge_once(scene.calls, charged, clip.clip_id))
        if isinstance(scene, DescribedScene)
        else scene
        for clip, scene in zip(unit.clips, scenes, strict=True)
    ]


def max_units_waiting(config: BuildConfig, judge_budget: JudgeBudget | None, pictured: bool) -> int:
    """Return how many units may wait for answers at once, so that calls never have to wait for questions.

    If questions have pictures, the number is limited to what fits in memory while a batch is gathered.
    """
    if judge_budget is None:
        return 0
    clips = config.limits.batch_clips if judge_budget.in_batches else _CLIPS_A_CALL * config.limits.calls_at_once
    if pictured:
        clips = min(clips, _PICTURED_CLIPS)
    return -(-clips // config.unit_size)


def patience(limits: RunLimits) -> RetryPolicy:
    return RetryPolicy(
        limits.calls_at_once, limits.call_seconds, limits.outage_seconds, batch_appear_hours=limits.batch_appear_hours
    )
