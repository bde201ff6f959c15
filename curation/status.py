"""How far a run is: read from OUT alone, while it goes on, after it, and after it died."""

from __future__ import annotations

from dataclasses import dataclass

from curation.config import Config
from curation.lease import Holder
from curation.ledger import Tally
from curation.lock import holder, is_at_work
from curation.plan import Plan
from curation.retry import OpenRetry
from curation.state import take_stock
from curation.summary import Spending
from shards.storage import Storage


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


def status(out: Storage, config: Config) -> Status:
    """Reads the ledgers of a planned OUT. Raises FileNotFoundError for one that is gone, DamagedRecord."""
    plan = Plan(out, config)
    shards_planned = sum(1 for _ in plan.shards())
    state, tally = take_stock(out, config.units_per_shard)
    runner = holder(out)
    retry = OpenRetry.read(out)
    at_work = runner is not None and is_at_work(out)
    spending = Spending.read(out, at_work) if config.judge == "claude" else None
    return Status(
        plan.clips, shards_planned, len(state.sealed), tally, plan.passed_over, runner, spending, len(state.partial),
        retry, sum(retry.is_left(shard) for shard in state.sealed.values()) if retry else 0, at_work,
    )  # fmt: skip
