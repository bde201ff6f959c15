"""How far a run is: read from OUT alone, while it goes on, after it, and after it died.

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
    """Counts as of now. `passed_over` and `shards_partial` are as in `Summary`.

    `runner` holds the lock; whether it is alive is `running`. `spending` is None where nothing is paid for. Of an open
    `retry`, `retry_left` shards are left.
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
        """Every clip is decided, and none is kept."""
        return self.tally.total == self.planned and not any(outcome == "kept" for outcome, _, _ in self.tally.lines())


def status(out: Storage, config: BuildConfig) -> Status:
    """Reads the ledgers of a planned OUT. Raises FileNotFoundError for one that is gone, DamagedRecord."""
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
