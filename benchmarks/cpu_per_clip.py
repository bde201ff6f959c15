"""Claims: a kept clip costs at most 1.22 times the CPU time of bare ffmpeg on the same clip, its share of the run's
start included, and at most 1.1 times without it.

Measured: the CPU-seconds of `pipelines/build_nsp.py` with one worker over 118 clips of real footage (1280×720, about 5
s each), and of every process below it: Ray's servers, its workers, and their ffmpeg. The CPU time of an empty Ray
session, measured in the same round, is subtracted. The quotient is per kept clip. The steady state is the slope between
a run over the first 20 of the clips and the run over all.

Compared with: ffmpeg by itself on the same clips, with the arguments of the first version of the cut, one after
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
    write_manifest,
)
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.sealing.committed import CommittedState

CLIPS = 118
FEW_CLIPS = 20
ROUNDS = 2
TARGET = 1.22
STEADY_TARGET = 1.1
_CONFIG = BuildConfig(judge="none")


@dataclass(frozen=True)
class _Round:
    bare: list[float]
    empty: TreeCpu
    few: TreeCpu
    whole: TreeCpu
    kept: int
    cut: float

    @property
    def ratio(self) -> float:
        return (self.whole.total - self.empty.total) / self.kept / (sum(self.bare) / CLIPS)

    @property
    def slope(self) -> float:
        return (self.whole.total - self.few.total) / sum(self.bare[FEW_CLIPS:])


def benchmark(rounds: int | None = None) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        manifest = film_clips(Path(folder) / "clips", CLIPS)
        videos = read_manifest(manifest)
        few = write_manifest(manifest.with_name("few.csv"), [video.name for video in videos[:FEW_CLIPS]])
        lines = bare_lines(videos, Path(folder) / "bare")
        done = [
            _round(lines, few, manifest, Path(folder) / f"out{place}", place % 2) for place in range(rounds or ROUNDS)
        ]
    return [
        Result(
            "CPU per kept clip, pipeline over bare ffmpeg", [each.ratio for each in done], TARGET, notes=_notes(done)
        ),
        Result("… in steady state, from 20 clips to 118", [each.slope for each in done], STEADY_TARGET),
    ]


def _round(lines: list[list[str]], few_clips: Path, manifest: Path, out: Path, bare_last: int) -> _Round:
    bare = [] if bare_last else _bare(lines)
    few = _build(few_clips, out.with_name(f"{out.name}-few"))
    whole = _build(manifest, out)
    empty = tree_cpu([sys.executable, "-m", "benchmarks.children.empty_session"])
    place = Storage.at(out)
    rows = [
        row for rows in CommittedState.read(place, _CONFIG.units_per_shard).ledgers(place) for row in rows if row.kept
    ]
    cut = sum(row.cut_cpu_seconds for row in rows)
    if whole.total < cut:
        raise RuntimeError(f"{whole.total:.1f} CPU-s in all cannot hold {cut:.1f} of ffmpeg: some went uncounted")
    return _Round(bare or _bare(lines), empty, few, whole, len(rows), cut)


def _build(manifest: Path, out: Path) -> TreeCpu:
    return tree_cpu(
        [
            sys.executable,
            "pipelines/build_nsp.py",
            "--source",
            str(manifest),
            "--out",
            str(out),
            "--judge",
            _CONFIG.judge,
            "--workers",
            "1",
        ]
    )


def _bare(lines: list[list[str]]) -> list[float]:
    """Return the CPU-seconds of each."""
    used = []
    for line in lines:
        before = children_cpu()
        run_bare(line)
        used.append(children_cpu() - before)
    return used


def _notes(done: list[_Round]) -> list[str]:
    def middle(values: list[float]) -> float:
        return statistics.median(values)

    bare = middle([sum(each.bare) for each in done])
    kept = [each.kept for each in done]
    whole, empty = middle([each.whole.total for each in done]), middle([each.empty.total for each in done])
    cut = middle([each.cut for each in done])

    def part(kind: str) -> str:
        within = middle([each.whole.parts.get(kind, 0.0) for each in done])
        idle = middle([each.empty.parts.get(kind, 0.0) for each in done])
        return f"{kind} {within:.1f} (of which {idle:.1f} in an empty session)"

    return [
        f"CPU-s: bare {bare:.1f} for {CLIPS} clips; pipeline {whole:.1f}, kept {kept}; empty Ray session {empty:.1f}",
        f"of the pipeline's: its ffmpeg {cut:.1f} ({cut / bare:.3f} of bare)",
        f"and, sampled: {'; '.join(part(kind) for kind in ('driver', 'workers', 'daemons'))}",
    ]


if __name__ == "__main__":
    run_alone(benchmark)
