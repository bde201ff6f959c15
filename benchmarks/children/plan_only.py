"""Do the work of a driver before its first step on Ray, for its memory and time: `plan_only SOURCE OUT`.

It makes the plan of SOURCE in OUT, opens it, reads the progress, and iterates over all remaining work.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.children.memory import peak_bytes
from nextscene.curation.config import BuildConfig
from nextscene.curation.plan import Plan
from nextscene.curation.run.locations import open_out
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sealing.committed import CommittedState, clean_up
from nextscene.curation.sealing.remaining import remaining
from nextscene.curation.sources import Source


def main(location: str, out_location: str) -> None:
    config = BuildConfig(judge="none")
    begun = time.process_time()
    source, out = Source.at(location), open_out(out_location)
    prepare(out, source, config)
    planned = time.process_time()
    after_plan = peak_bytes()
    plan = Plan(out, config)
    state = CommittedState.read(out, config.units_per_shard)
    clean_up(out, state, config.units_per_shard)
    clips = sum(len(unit.clips) for work in remaining(plan, state, out) for unit in work.todo)
    if clips != plan.clips:
        raise SystemExit(f"{clips} clips left to do of {plan.clips} planned")
    walked = time.process_time()
    figures = {"clips": clips, "plan_seconds": planned - begun, "walk_seconds": walked - planned}
    print(json.dumps(figures | {"peak_after_plan": after_plan, "peak": peak_bytes()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
