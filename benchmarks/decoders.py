"""Claim: the decoder fills arrays with at least 0.9 of the clips that PyAV by itself decodes in the same CPU time.

Measured: the CPU time of `decode.decode` by each library that is installed, over 20 clips of the sample film (832×480,
17 to 81 frames), each from memory into a reused array. The claim is about PyAV, the default; the other libraries are
shown beside it, and a line says which of them is not installed.

Compared with: PyAV by itself, decoding as many frames of the same clips to RGB with one thread. They take turns clip by
clip; their order changes from round to round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import get_args

import numpy as np

from benchmarks.film_dataset import MAX_FRAMES, decode_bare, delivered, few_clips
from benchmarks.support import WORK, Result, run_alone
from nextscene.shards.format.sample import Sample
from nextscene.shards.loading.decode import Backend, NoDecoder, decode

ROUNDS = 5
TARGET = 0.9
_BARE = "bare PyAV"

_Decode = Callable[[Sample], None]


def benchmark(rounds: int | None = None) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    clips = few_clips()
    absent, ways = _ways(clips[0])
    done = [_round(ways, clips, place % 2 == 1) for place in range(-1, rounds or ROUNDS)][1:]  # the first warms up
    notes = [_note(name, [each[name] for each in done], [each["pyav"] for each in done], len(clips)) for name in ways]
    ratios = [each[_BARE] / each["pyav"] for each in done]
    claim = "clips per CPU-second of nextscene.shards.loading.decode by PyAV, over bare PyAV"
    return [Result(claim, ratios, TARGET, at_most=False, notes=notes + absent)]


def _ways(clip: Sample) -> tuple[list[str], dict[str, _Decode]]:
    """Return a line for each library that is missing, and a function for each of the others and for bare PyAV."""
    room = np.zeros((MAX_FRAMES, clip.record.height, clip.record.width, 3), np.uint8)
    absent: list[str] = []
    ways: dict[str, _Decode] = {_BARE: lambda clip: decode_bare(clip.media, delivered(clip))}
    for backend in get_args(Backend):
        way = _into(room, backend)
        try:
            way(clip)
        except NoDecoder as reason:
            absent.append(f"{backend} is not installed: {reason}")
        else:
            ways[backend] = way
    return absent, ways


def _into(room: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], backend: Backend) -> _Decode:
    def way(clip: Sample) -> None:
        decode(clip.media, (clip.record.width, clip.record.height), room[: delivered(clip)], backend)

    return way


def _round(ways: dict[str, _Decode], clips: list[Sample], backwards: bool) -> dict[str, float]:
    """Return the CPU-seconds of each way. They take turns clip by clip, so that a disturbance affects all."""
    names = list(reversed(ways)) if backwards else list(ways)
    seconds = dict.fromkeys(ways, 0.0)
    for clip in clips:
        for name in names:
            begun = time.process_time()
            ways[name](clip)
            seconds[name] += time.process_time() - begun
    return seconds


def _note(name: str, seconds: list[float], pyav: list[float], clips: int) -> str:
    ratios = [theirs / own for own, theirs in zip(seconds, pyav, strict=True)]
    rate = statistics.median(clips / own for own in seconds)
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) times as many as by pyav"
    return f"{name}: {rate:.1f} clips per CPU-second, {spread}"


if __name__ == "__main__":
    run_alone(benchmark)
