"""Claim: the speed-up of the pipeline from one worker to two is at least 0.9 times that of bare ffmpeg.

Measured: the wall-clock time of the engine over 64 clips of real footage (1280×720, about 5 s each, `unit_size` 4),
with one worker and with two, from its first step to the receipt of the last shard. Ray's start, the start of the worker
processes, and Ray's end are excluded, by starting the engine on a warm Ray: in a real run they are negligible, over 64
clips they would be a third. See `children/engine_only.py`.

Compared with: ffmpeg by itself on the same clips with exactly the same arguments, one process at a time and two at a
time. The target is a quotient of two speed-ups because one such process already uses more than one core (it decodes,
scales and encodes in threads of its own), so that two of them on two cores cannot be twice as fast.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support import WORK, Result, bare_lines, child, film_clips, read_manifest, run_alone, run_bare

CLIPS = 64
ROUNDS = 2
TARGET = 0.9


@dataclass(frozen=True)
class _Round:
    """Seconds with one at a time and with two."""

    bare: tuple[float, float]
    engine: tuple[float, float]

    @property
    def ratio(self) -> float:
        return (self.engine[0] / self.engine[1]) / (self.bare[0] / self.bare[1])


def benchmark(rounds: int | None = None) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        manifest = film_clips(Path(folder) / "clips", CLIPS)
        lines = bare_lines(read_manifest(manifest), Path(folder) / "bare")
        done = [_round(lines, manifest, Path(folder) / f"out{place}", place % 2) for place in range(rounds or ROUNDS)]
    claim = "speed-up from 1 to 2 workers, over bare ffmpeg's"
    return [Result(claim, [each.ratio for each in done], TARGET, at_most=False, notes=_notes(done))]


def _round(lines: list[list[str]], manifest: Path, out: Path, two_first: int) -> _Round:
    counts = (2, 1) if two_first else (1, 2)
    bare = {}
    engine = {}
    for workers in counts:
        bare[workers] = _bare_seconds(lines, workers)
        engine[workers] = _engine_seconds(manifest, out.with_name(f"{out.name}-{workers}"), workers)
    return _Round((bare[1], bare[2]), (engine[1], engine[2]))


def _bare_seconds(lines: list[list[str]], at_once: int) -> float:
    begun = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(run_bare, lines))
    return time.monotonic() - begun


def _engine_seconds(manifest: Path, out: Path, workers: int) -> float:
    answer = child("engine_only", str(manifest), str(out), str(workers))
    if answer["kept"] != CLIPS:
        raise RuntimeError(f"{answer['kept']} clips kept, not {CLIPS}: what was timed is not what bare ffmpeg did")
    return float(answer["seconds"])


def _notes(done: list[_Round]) -> list[str]:
    def line(name: str, pairs: list[tuple[float, float]]) -> str:
        one, two = (statistics.median(pair[place] for pair in pairs) for place in (0, 1))
        speed_up = statistics.median(pair[0] / pair[1] for pair in pairs)
        return f"{name}: {CLIPS / one:.2f} clips per second with one, {CLIPS / two:.2f} with two, {speed_up:.2f} times"

    return [line("pipeline", [each.engine for each in done]), line("bare ffmpeg", [each.bare for each in done])]


if __name__ == "__main__":
    run_alone(benchmark)
