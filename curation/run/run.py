"""A run: takes the lock, prepares the plan, does the work that is left, and writes the manifest and the summary."""

from __future__ import annotations

import logging
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nextscene.common.errors import AskingEnded, DamagedRecord, RunStopped, SourceGone, UsageError
from nextscene.common.ray_cluster.supervisor import supervise
from nextscene.common.run_lock import Heartbeat, hold_lock
from nextscene.common.storage import StorageFault
from nextscene.common.text import many
from nextscene.curation.config import BuildConfig
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.plan import Plan
from nextscene.curation.progress import StageProgress, Stages, Tick
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.build_on_ray import BuildOnRay
from nextscene.curation.run.existing_plan import has_only_plan
from nextscene.curation.run.judge_preflight import preflight
from nextscene.curation.run.locations import claim_out, open_for_build
from nextscene.curation.run.prepare import prepare, with_recorded_prompt_version
from nextscene.curation.run.recorded_budget import describe_budget, record_budget
from nextscene.curation.run.source_changes import SourceComparison, compare_unless_replanned, read_previous_config
from nextscene.curation.run.source_sentinels import read_sentinels
from nextscene.curation.sealing.committed import CommittedState, clean_up, discard_superseded, read_progress
from nextscene.curation.sealing.partial_shards import seal_partial_shards
from nextscene.curation.sealing.remaining import WorkLeft, count_retried
from nextscene.curation.sealing.repair import repair_commits
from nextscene.curation.sealing.retry import OpenRetry, check_open_retry, end_retry, open_retry, start_or_resume_retry
from nextscene.curation.stages.unit import UnitContext
from nextscene.curation.summary import BuildSummary, publish_summary, sums_of_last_run
from nextscene.judge.api.api_identity import ApiIdentity
from nextscene.shards.format.checksums import Checksums, write_checksums
from nextscene.shards.format.layout import CHECKSUMS, REPORT

if TYPE_CHECKING:
    from nextscene.judge.call_progress import CallProgress

_ROUNDS = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildRequest:
    """The user's request. `retry` names the outcomes whose clips are processed again.

    At most `stop_after` of the undecided clips are begun; None means all of them. `judge_budget` is for the judge
    `claude`; it is None if the price is not known. `judge_unavailable` is the reason why claude cannot be asked, or "".
    """

    source: str
    out: str
    config: BuildConfig
    workers: int | None = None
    retry: frozenset[str] = frozenset()
    ray_address: str | None = None
    judge_budget: JudgeBudget | None = None
    stop_after: int | None = None
    judge_unavailable: str = ""


@dataclass(frozen=True)
class Retried:
    """The number of clips that a retry has processed again, and of those that ended with another outcome by it."""

    clips: int
    changed: int


@dataclass(frozen=True)
class BuildResult:
    """The result of a run. `idle` is True if nothing was left to do; `source` compares the source with the plan.

    `config` is the configuration that the dataset was begun with, `cut_version` the version of the cut that made it,
    `retry` a retry that is not finished, `retried` what the run's own has done.
    """

    summary: BuildSummary
    idle: bool
    source: SourceComparison
    config: BuildConfig
    cut_version: int
    retry: OpenRetry | None
    retried: Retried | None = None


def build(order: BuildRequest, progress: StageProgress) -> BuildResult:
    """Make the dataset, or the part of it that is missing. Calling it again does only the work that is not done.

    Raise UsageError for a request that cannot work, nearly always before any work; raise RunStopped or StorageFault if
    the run must stop. Committed work is kept, and the same call continues it.
    """
    begun = time.monotonic()
    source, place, gone = open_for_build(order.source, order.out, order.config)
    order = replace(order, config=with_recorded_prompt_version(place, order.config))
    if order.config.judge_kind.pays:
        why = preflight(place, source, order.config, order.judge_budget, order.retry, order.judge_unavailable)
        order = replace(order, judge_unavailable=why)
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    wait = order.config.limits.lock_wait_seconds
    with claim_out(place) as ours, hold_lock(ours, run_id, wait) as heartbeat:
        out = heartbeat.out
        check_open_retry(out, order.retry)
        order = replace(order, config=with_recorded_prompt_version(out, order.config))
        before = read_previous_config(out)
        recorded = prepare(out, source, order.config, order.judge_budget, retry=bool(order.retry))
        if order.judge_budget:
            record_budget(out, order.judge_budget, recorded.plan_sha256)
        job = UnitContext(
            order.config,
            source.roots,
            out,
            recorded.identity_settings["ffmpeg"],
            run_id,
            order.judge_budget,
            recorded.begun_with_cut,
            read_sentinels(out),
            ApiIdentity.current() if order.judge_budget else None,
            recorded.schema_version,
        )
        run = _Run(order, job, recorded, heartbeat, progress, begun, gone)
        try:
            summary = run.go()
            found = (
                SourceComparison(unread=str(gone)) if gone else compare_unless_replanned(out, source, before, recorded)
            )
        except FileNotFoundError:
            out.check_anchor()
            raise
        return BuildResult(summary, run.idle, found, order.config, recorded.cut_version, open_retry(out), run.retried)


class _Run:
    """One run of an existing plan, by the holder of the lock."""

    def __init__(
        self,
        order: BuildRequest,
        job: UnitContext,
        recorded: RecordedConfig,
        heartbeat: Heartbeat,
        progress: StageProgress,
        begun: float,
        gone: SourceGone | None,
    ) -> None:
        self._order = order
        self._job = job
        self._out = job.out
        self._recorded = recorded
        self._heartbeat = heartbeat
        self._progress = progress
        self._begun = begun
        self._gone = gone
        self._plan = Plan(job.out, order.config)
        self._shards = sum(1 for _ in self._plan.shards())
        self._idle = True
        self.retried: Retried | None = None
        self._before = sums_of_last_run(job.out)

    @property
    def idle(self) -> bool:
        return self._idle

    def go(self) -> BuildSummary:
        units_per_shard = self._job.config.units_per_shard
        state, tally = repair_commits(self._out, units_per_shard)
        clean_up(self._out, state, units_per_shard)
        self._begin(tally.total, len(state.sealed) - len(state.partial))
        if self._order.retry and (undecided := self._plan.clips - tally.total):
            _log.warning("first the %s not decided yet, then the retry", many(undecided, "clip"))
        try:
            state = self._finish(state)
            if self._order.retry:
                self._retry(state)
        except (RunStopped, StorageFault, KeyboardInterrupt) as end:
            self._conclude_as_it_is(with_page=isinstance(end, AskingEnded))
            raise
        except UsageError as mistake:
            if has_only_plan(self._out):
                raise
            self._conclude_as_it_is()
            raise UsageError(f"{mistake}. All that is decided is kept") from mistake
        summary = self._conclude_with_page()
        if self._order.retry:
            self._heartbeat.check()
            end_retry(self._out)
        return summary

    def _finish(self, state: CommittedState) -> CommittedState:
        """Work until every shard is sealed, or once if `stop_after` is set. Raise RunStopped after three rounds.

        One round is not enough for shards with units whose damaged commits had to be undone.
        """
        for _ in range(_ROUNDS):
            self._work(WorkLeft(state, self._order.stop_after))
            state = CommittedState.read(self._out, self._job.config.units_per_shard)
            if self._order.stop_after or state.complete(self._plan):
                return state
            state, tally = read_progress(self._out, self._job.config.units_per_shard)
            self._begin(tally.total, len(state.sealed) - len(state.partial))
        raise RunStopped(f"{self._out.display_uri} does not keep what is written there; check its disk")

    def _retry(self, state: CommittedState) -> None:
        self._heartbeat.check()
        if retry := start_or_resume_retry(self._out, state, self._order.retry):
            clips, shards = count_retried(state, self._out, retry)
            self._begin(self._plan.clips - clips, self._shards - shards)
            before = self._count(retry)
            self._work(WorkLeft(state, retry=retry))
            self.retried = Retried(clips, before - self._count(retry))

    def _count(self, retry: OpenRetry) -> int:
        """Return the number of clips whose outcome now is one of the retry's."""
        _, tally = read_progress(self._out, self._job.config.units_per_shard)
        return sum(map(tally.count, retry.outcomes))

    def _before_work(self) -> None:
        """Log once which model is asked and what that may cost. Raise SourceGone or UsageError if work cannot begin."""
        if self._gone:
            raise self._gone
        if self._order.judge_unavailable:
            raise UsageError(self._order.judge_unavailable)
        if self._order.judge_budget and self._idle:
            _log.warning("%s", describe_budget(self._out, self._order.judge_budget))

    def _begin(self, clips: int, shards: int) -> None:
        """Report the progress before the next work: this many clips and shards of the plan are done."""
        self._reached = Stages(clips, clips, clips, shards, clips)
        planned = self._plan.clips
        self._progress.begin(Stages(planned, planned, planned, self._shards, planned), self._reached)

    def _work(self, left: WorkLeft) -> None:
        if next(left.shards(self._plan, self._out), None) is None:
            return
        self._before_work()
        self._idle = False
        self._out.delete(CHECKSUMS)
        request = BuildOnRay(self._job, left, self._order.workers, self._order.ray_address)
        end = supervise(request, self._ticker(), self._heartbeat.check)
        if end or self._order.stop_after:
            self._heartbeat.check()
            seal_partial_shards(self._out, self._plan, self._job.config.units_per_shard)
        if end:
            raise end

    def _ticker(self) -> Tick:
        before = self._reached

        def tick(done: Stages, asking: CallProgress | None) -> None:
            self._reached = before + done
            self._progress.tick(self._reached, asking)

        return tick

    def _conclude_as_it_is(self, with_page: bool = False) -> None:
        """Publish the shards sealed so far. Suppress errors: the error that ended the run is the one to report."""
        with suppress(StorageFault, RunStopped, DamagedRecord, FileNotFoundError):
            if with_page:
                self._conclude_with_page()
            else:
                self._conclude()

    def _conclude_with_page(self) -> BuildSummary:
        summary, sums = self._conclude()
        if sums is not None:
            write_checksums(self._out, sums | {REPORT: self._report()})
        return summary

    def _conclude(self) -> tuple[BuildSummary, Checksums | None]:
        self._heartbeat.check()
        self._out.check_anchor(remotely=True)
        state, tally = read_progress(self._out, self._job.config.units_per_shard)
        seconds = time.monotonic() - self._begun
        concluded = publish_summary(self._out, self._plan, self._recorded, state, tally, seconds, self._before)
        discard_superseded(self._out, state)
        return concluded

    def _report(self) -> str:
        """Write the page and return its sha256."""
        from nextscene.curation.report.make import write_report  # here: it loads plots that no worker needs

        self._heartbeat.check()
        return write_report(self._out, self._job.config, self._recorded.fingerprint, self._job.root).sha256
