"""Run every benchmark, one after another, and print one table. A missed target is shown, and is not a failure."""

from __future__ import annotations

import time

import click

from benchmarks import (
    asking,
    cpu_per_clip,
    dealing,
    decoders,
    image_cut,
    late_span,
    loader_memory,
    loader_start,
    loading,
    plan_memory,
    prefix_reuse,
    resume,
    screen_rate,
    workers,
)
from benchmarks.support import Benchmark, Result, notice, show
from nextscene.pipelines.cli.command import Command

BENCHMARKS: dict[str, Benchmark] = {
    "cpu_per_clip": cpu_per_clip.benchmark,
    "workers": workers.benchmark,
    "image_cut": image_cut.benchmark,
    "late_span": late_span.benchmark,
    "screen_rate": screen_rate.benchmark,
    "plan_memory": plan_memory.benchmark,
    "asking": asking.benchmark,
    "resume": resume.benchmark,
    "loading": loading.benchmark,
    "decoders": decoders.benchmark,
    "loader_memory": loader_memory.benchmark,
    "loader_start": loader_start.benchmark,
    "prefix_reuse": prefix_reuse.benchmark,
    "dealing": dealing.benchmark,
}


@click.command(cls=Command, help=__doc__)
@click.option("--rounds", type=click.IntRange(1), help="How many rounds of each.  [default: each one's own]")
def main(rounds: int | None) -> None:
    results: list[Result] = []
    for name, benchmark in BENCHMARKS.items():
        begun = time.monotonic()
        notice.print(f"{name} …", markup=False)
        measured = benchmark(rounds)
        notice.print(f"{name}: {time.monotonic() - begun:.0f} s", markup=False)
        for result in measured:
            notice.print("  " + " | ".join(result.row()), markup=False)
        results += measured
    show(results)


if __name__ == "__main__":
    main()
