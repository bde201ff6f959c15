"""Claim: the plan is made and read in constant memory, and in constant time per row.

Measured: the peak memory (resident set) and the CPU time per row of a fresh process that does the work of a driver
before its first step on Ray (`children/plan_only.py`), over 200,000 clips: in one flat folder with a caption file
beside each video, in folders of a thousand, and in a manifest. The videos are hard links to a few small files, so that
reading them costs little.

Compared with: the same over 20,000 clips.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.support import WORK, Result, child, run_alone, write_manifest

SMALL, LARGE = 20_000, 200_000
ROUNDS = 2
TARGET = 1.1
_INODES = 8
"""ext4 allows at most 65,000 links to a file."""


def benchmark(rounds: int | None = None) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    results = []
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        for name, lay_out in _LAYOUTS.items():
            sources = {clips: lay_out(Path(folder) / f"{name}-{clips}", clips) for clips in (SMALL, LARGE)}
            results += _compare(name, sources, rounds or ROUNDS)
    return results


def _compare(name: str, sources: dict[int, Path], rounds: int) -> list[Result]:
    done = [{clips: _figures(source, clips) for clips, source in sources.items()} for _ in range(rounds)]

    def middle(clips: int, of: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(of(each[clips]) for each in done)

    small, large = (middle(clips, lambda figures: figures["peak"]) for clips in (SMALL, LARGE))
    per_row = (large - small) / (LARGE - SMALL)
    sizes = f"{small / 1e6:.0f} MB at {SMALL:,} rows, {large / 1e6:.0f} MB at {LARGE:,}"
    memory = f"{sizes}: {per_row:.0f} bytes per further row"
    slow, fast = middle(LARGE, _microseconds), middle(SMALL, _microseconds)
    seconds = f"{fast:.0f} µs per row at {SMALL:,} rows, {slow:.0f} at {LARGE:,}"
    peaks = [each[LARGE]["peak"] / each[SMALL]["peak"] for each in done]
    times = [_microseconds(each[LARGE]) / _microseconds(each[SMALL]) for each in done]
    return [
        Result(f"peak memory of the plan, 10 times the rows, {name}", peaks, TARGET, notes=[memory]),
        Result(f"CPU per row of the plan, 10 times the rows, {name}", times, TARGET, notes=[seconds]),
    ]


def _figures(source: Path, clips: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=WORK) as out:
        figures = child("plan_only", str(source), out)
    if figures["clips"] != clips:
        raise RuntimeError(f"{figures['clips']} clips planned of {clips}")
    return figures


def _microseconds(figures: dict[str, Any]) -> float:
    return float(figures["plan_seconds"] + figures["walk_seconds"]) / float(figures["clips"]) * 1e6


def _flat(folder: Path, clips: int) -> Path:
    _link(folder, clips, lambda place: folder)
    return folder


def _nested(folder: Path, clips: int) -> Path:
    _link(folder, clips, lambda place: folder / f"{place // 1000:03d}")
    return folder


def _manifest(folder: Path, clips: int) -> Path:
    """Write a manifest of the videos in the flat folder, which was made before."""
    folder.mkdir()
    videos = [f"../{folder.name.replace('manifest', 'flat')}/{_stem(place)}.mp4" for place in range(clips)]
    return write_manifest(folder / "clips.csv", videos)


def _link(folder: Path, clips: int, home: Callable[[int], Path]) -> None:
    originals = folder.with_name(f"{folder.name}-originals")
    originals.mkdir()
    for inode in range(_INODES):
        (originals / f"{inode}.mp4").write_bytes(b"small")
        (originals / f"{inode}.txt").write_text("a short caption of a small clip")
    for place in range(clips):
        home(place).mkdir(parents=True, exist_ok=True)
        for suffix in ("mp4", "txt"):
            os.link(originals / f"{place % _INODES}.{suffix}", home(place) / f"{_stem(place)}.{suffix}")


def _stem(place: int) -> str:
    return f"clip-{place:07d}"


_LAYOUTS = {"flat": _flat, "nested": _nested, "manifest": _manifest}


if __name__ == "__main__":
    run_alone(benchmark)
