"""Claim: the loader's memory does not grow: the fifth epoch needs at most 1.05 times the memory of the first.

Measured: the peak in each epoch of the memory that a process that takes micro-batches and its one worker have
allocated, with the shared memory between them (`children/epochs.py`), over the whole film (137 clips of 832×480) in
micro-batches of two. Videos are cut to 17 frames. Then micro-batches are nearly all of one size and small, so that the
peak does not depend on which of them coincide, and growth of a few kilobytes per clip would be visible.

Compared with: the first epoch of the same process.
"""

from __future__ import annotations

from typing import Any

from benchmarks.film_dataset import MICRO_BATCH, film_dataset
from benchmarks.support import Result, child, run_alone

MAX_FRAMES = 17
EPOCHS = 5
ROUNDS = 1
TARGET = 1.05


def benchmark(rounds: int | None = None) -> list[Result]:
    location = film_dataset()
    done = [child("epochs", location, str(MICRO_BATCH), str(MAX_FRAMES), str(EPOCHS)) for _ in range(rounds or ROUNDS)]
    growth = [peaks["all"][-1] / peaks["all"][0] for peaks in done]
    return [Result("peak memory of the loader, fifth epoch over first", growth, TARGET, notes=_notes(done[-1]))]


def _notes(peaks: dict[str, Any]) -> list[str]:
    def line(kind: str) -> str:
        return " ".join(f"{peak / 1e6:.0f}" for peak in peaks[kind])

    return [f"MB by epoch: {line('all')}, of which without micro-batches: {line('heap')}"]


if __name__ == "__main__":
    run_alone(benchmark)
