"""Claim: a kept clip costs at most 1.15 times the CPU time of bare ffmpeg on the same clip.

Measured: the CPU-seconds of `pipelines/build_nsp.py` with one worker over 100 clips of real footage (1280×720, about
5 s each), and of every process below it: Ray's daemons, its workers, and their ffmpeg. From this goes the CPU time of a
Ray session that does nothing, measured in the same round. The quotient is taken per kept clip.

Compared with: ffmpeg run by itself on the same clips, with the arguments of the first version of the cut, one after
another. The order within a round changes from round to round.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support import (
    WORK,
    Result,
    TreeCpu,
    bare_lines,
    children_cpu,
    film_clips,
    read_manifest,
    run_alone,
    run_bare,
    tree_cpu,
)
from curation.config import Config
from curation.state import State
from shards.storage import Storage

CLIPS = 100
ROUNDS = 2
TARGET = 1.15
_CONFIG = Config(judge="none")


@dataclass(frozen=True)
class _Round:
    bare: float
    empty: TreeCpu
    whole: TreeCpu
    kept: int
    cut: float

    @property
    def ratio(self) -> float:
        return (self.whole.total - self.empty.total) / self.kept / (self.bare / CLIPS)


def benchmark(rounds: int | None = None) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        manifest = film_clips(Path(folder) / "clips", CLIPS)
        lines = bare_lines(read_manifest(manifest), Path(folder) / "bare")
        done = [_round(lines, manifest, Path(folder) / f"out{place}", place % 2) for place in range(rounds or ROUNDS)]
    ratios = [each.ratio for each in done]
    return [Result("CPU per kept clip, pipeline over bare ffmpeg", ratios, TARGET, notes=_notes(done))]


def _round(lines: list[list[str]], manifest: Path, out: Path, bare_last: int) -> _Round:
    bare = 0.0 if bare_last else _bare(lines)
    whole = tree_cpu(
        [sys.executable, "pipelines/build_nsp.py", "--source", str(manifest), "--out", str(out),
         "--judge", _CONFIG.judge, "--workers", "1"]
    )  # fmt: skip
    empty = tree_cpu([sys.executable, "-m", "benchmarks.children.empty_session"])
    place = Storage.at(out)
    rows = [row for rows in State.read(place, _CONFIG.units_per_shard).ledgers(place) for row in rows if row.kept]
    cut = sum(row.cut_cpu_seconds for row in rows)
    if whole.total < cut:
        raise RuntimeError(f"{whole.total:.1f} CPU-s in all cannot hold {cut:.1f} of ffmpeg: some went uncounted")
    return _Round(bare or _bare(lines), empty, whole, len(rows), cut)


def _bare(lines: list[list[str]]) -> float:
    before = children_cpu()
    for line in lines:
        run_bare(line)
    return children_cpu() - before


def _notes(done: list[_Round]) -> list[str]:
    def middle(values: list[float]) -> float:
        return statistics.median(values)

    bare = middle([each.bare for each in done])
    kept = [each.kept for each in done]
    whole, empty = middle([each.whole.total for each in done]), middle([each.empty.total for each in done])
    cut = middle([each.cut for each in done])

    def part(kind: str) -> str:
        within = middle([each.whole.parts.get(kind, 0.0) for each in done])
        idle = middle([each.empty.parts.get(kind, 0.0) for each in done])
        return f"{kind} {within:.1f} (of which {idle:.1f} in an empty session)"

    return [
        f"CPU-s: bare {bare:.1f} for {CLIPS} clips; pipeline {whole:.1f}, kept {kept}; empty Ray session {empty:.1f}",
        f"of the pipeline's: its ffmpeg {cut:.1f} ({cut / bare:.3f} of bare: 1 but for noise)",
        f"and, looked at now and then: {'; '.join(part(kind) for kind in ('driver', 'workers', 'daemons'))}",
    ]


if __name__ == "__main__":
    run_alone(benchmark)
