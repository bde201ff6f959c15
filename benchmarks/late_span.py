"""Claim: a span at the end of a recording of two hours costs at most twice the CPU time of one at its start.

Measured: the CPU-seconds of `stages.cut.cut`, that is of ffmpeg and of seeking, for spans of 5 s in the last minute of
a transport stream of two hours, which has no index: 1280×720, a keyframe every 250 frames at most.

Compared with: the same spans of its first minute. The stream is one minute of the sample film, 120 times, so both show
the same pictures.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.support import WORK, Result, children_cpu, film, run_alone, run_ffmpeg
from nextscene.curation.config import BuildConfig
from nextscene.curation.media.probe import Measured, measure
from nextscene.curation.media.seek import Span
from nextscene.curation.stages.cut import Cut, cut

MINUTES = 120
PLACES = (3.0, 14.3, 27.7, 41.0, 52.9)
SECONDS = 5.0
ROUNDS = 3
TARGET = 2.0
_CONFIG = BuildConfig(judge="none")


def benchmark(rounds: int | None = None) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        recording = _recording(Path(folder))
        with recording.open("rb") as file:
            measured = measure(file)
        done = [
            (_cpu(recording, measured, 0.0), _cpu(recording, measured, 60.0 * (MINUTES - 1)))
            for _ in range(rounds or ROUNDS)
        ]
    first, last = (statistics.median(sums) for sums in zip(*done, strict=True))
    note = f"CPU-s for {len(PLACES)} clips: in the first minute {first:.2f}, in the last {last:.2f}"
    return [
        Result(
            "CPU of spans at the end of two hours, over those at the start",
            [b / a for a, b in done],
            TARGET,
            notes=[note],
        )
    ]


def _recording(folder: Path) -> Path:
    minute, hours = folder / "minute.ts", folder / "hours.ts"
    encoding = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "30", "-g", "250", "-bf", "2", "-b_strategy", "0"]
    run_ffmpeg("-ss", "100", "-t", "60", "-i", str(film()), "-map", "0:v", *encoding, str(minute))
    run_ffmpeg("-stream_loop", str(MINUTES - 1), "-i", str(minute), "-c", "copy", str(hours))
    return hours


def _cpu(recording: Path, measured: Measured, begin: float) -> float:
    before = children_cpu()
    with tempfile.TemporaryDirectory(dir=WORK) as scratch:
        for place in PLACES:
            made = cut(recording, Span(begin + place, SECONDS), measured, _CONFIG, Path(scratch))
            if not isinstance(made, Cut):
                raise RuntimeError(f"{begin + place} s: {made}")
    return children_cpu() - before


if __name__ == "__main__":
    run_alone(benchmark)
