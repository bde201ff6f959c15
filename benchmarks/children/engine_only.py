"""Time the engine on a warm Ray, from its first step to its last: `engine_only SOURCE OUT WORKERS`.

It does the same as `curation.run.run.build`, with a pause between Ray's start and the first step, in which every worker
process and the judge start and import their modules.
"""

from __future__ import annotations

import json
import sys
import time

from nextscene.common.ray_cluster.cluster import connected
from nextscene.common.run_lock import hold_lock
from nextscene.curation.config import BuildConfig
from nextscene.curation.plan import Plan
from nextscene.curation.run.locations import open_out
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sealing.committed import CommittedState, read_progress
from nextscene.curation.sealing.remaining import remaining
from nextscene.curation.sources import Source
from nextscene.curation.stages.unit import UnitContext

UNIT_SIZE = 4
_WARM_UP_SECONDS = 4.0


def main(location: str, out_location: str, workers: int) -> None:
    config = BuildConfig(judge="none", unit_size=UNIT_SIZE)
    source, out = Source.at(location), open_out(out_location)
    with hold_lock(out, "benchmark") as heartbeat:
        recorded = prepare(out, source, config)
        job = UnitContext(config, source.root, out, recorded.identity_settings["ffmpeg"], "benchmark")
        plan, state = Plan(out, config), CommittedState.read(out, config.units_per_shard)
        with connected(workers, None):
            import ray

            from nextscene.curation.run.engine import Engine

            engine = Engine(job, workers, 0, heartbeat.check)
            ray.get([ray.remote(num_cpus=1)(warm_up).remote(job) for _ in range(workers)])
            begun = time.monotonic()
            engine.run(remaining(plan, state, out), lambda *_: None)
            seconds = time.monotonic() - begun
        _, tally = read_progress(out, config.units_per_shard)
    print(json.dumps({"seconds": seconds, "kept": tally.count("kept")}))


def warm_up(job: UnitContext) -> None:
    """Hold a CPU until all the workers have one, so that each has a process of its own."""
    job.check_worker()
    time.sleep(_WARM_UP_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
