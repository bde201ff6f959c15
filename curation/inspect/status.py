"""The progress of a run, read from OUT alone: during the run, after it, and after it died.

Tested in tests/pipelines/test_show.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from nextscene.common.lease import Holder
from nextscene.common.run_lock import holder, is_running
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.ledger import Tally
from nextscene.curation.plan import Plan
from nextscene.curation.sealing.committed import read_progress
from nextscene.curation.sealing.retry import OpenRetry
from nextscene.curation.summary import Spending


@dataclass(frozen=True)
class Status:
    """The present counts. `passed_over` and `shards_partial` are as in `BuildSummary`.

    `runner` is the holder of the lock, None if there is none; `running` is True if it is alive. `spending` is None if
    nothing is paid for. An open `retry` has `retry_left` shards left.
    """

    planned: int
    shards_planned: int
    shards_sealed: int
    tally: Tally
    passed_over: dict[str, int] | None
    runner: Holder | None
    spending: Spending | None
    shards_partial: int = 0
    retry: OpenRetry | None = None
    retry_left: int = 0
    running: bool = False

    @property
    def keeps_nothing(self) -> bool:
        """Return whether every clip is decided and none is kept."""
        return self.tally.total == self.planned and not any(outcome == "kept" for outcome, _, _ in self.tally.lines())


def status(out: Storage, config: BuildConfig) -> Status:
    """Return the status of a planned OUT, reading its ledgers.

    Raise FileNotFoundError for a ledger that is gone, and DamagedRecord.
    """
    plan = Plan(out, config)
    shards_planned = sum(1 for _ in plan.shards())
    state, tally = read_progress(out, config.units_per_shard)
    runner = holder(out)
    retry = OpenRetry.read(out)
    at_work = runner is not None and is_running(out)
    spending = Spending.read(out, at_work) if config.judge_kind.pays else None
    return Status(
        plan.clips,
        shards_planned,
        len(state.sealed),
        tally,
        plan.passed_over,
        runner,
        spending,
        len(state.partial),
        retry,
        sum(retry.is_pending(shard) for shard in state.sealed.values()) if retry else 0,
        at_work,
    )
