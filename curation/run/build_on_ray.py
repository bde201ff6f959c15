"""A request to the driver process: run the engine on the work that is left of the plan.

Tested in tests/curation/run/test_engine.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from nextscene.common.ray_cluster.messages import ToSupervisor
from nextscene.curation.plan import Plan
from nextscene.curation.run.unit_judge import max_units_waiting
from nextscene.curation.sealing.remaining import WorkLeft
from nextscene.curation.shared_out import check_shared
from nextscene.curation.stages.unit import UnitContext


@dataclass(frozen=True)
class BuildOnRay:
    """A request to do the work `left` on at most `workers` CPUs (None: all) of the Ray cluster at `address`.

    If `address` is None, the request starts a cluster of its own.
    """

    job: UnitContext
    left: WorkLeft
    workers: int | None
    address: str | None
    training: bool = False
    stop_seconds: float = 900.0

    def work(self, supervisor: ToSupervisor) -> Exception | None:
        """Return the error that ended the asking or left clips undecided, or None. Raise as `Engine.run`."""
        from nextscene.curation.run.engine import Engine  # Ray must not be imported before this

        check_shared(self.job.out)
        plan = Plan(self.job.out, self.job.config)
        waiting = max_units_waiting(self.job.config, self.job.judge_budget, pictured=plan.uncaptioned > 0)
        engine = Engine(self.job, self.workers, waiting, supervisor.check)
        return engine.run(self.left.shards(plan, self.job.out), supervisor.tick)
