"""Claims: the loader delivers at least 0.9 of the clips that a core can decode, and at least as many as a usual
WebDataset pipeline.

Measured: the CPU time in which `Loader` delivers an epoch of 20 clips of the sample film (832×480, 17 to 81 frames, in
the film's own mix of lengths) in micro-batches of two: decoded in this process, and by one worker. It is the CPU time
of this process and of the worker together, so that nothing is gained by moving work to another core, or lost to another
program. Wall-clock time, which would reveal that the two wait for each other, is shown beside it. The start of the
worker and the first epochs, in which memory is touched for the first time, are excluded.

Compared with: PyAV by itself, decoding as many frames of the same clips from memory to RGB in this process with one
thread; and `webdataset.WebDataset` over the same tars, with PyAV as its users write it, in micro-batches of the same
shapes, by a `DataLoader` with as many workers. The order within a round changes from round to round.
"""

from __future__ import annotations

import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import torch
import webdataset
from torch.utils.data import DataLoader

from benchmarks.film_dataset import MAX_FRAMES, MICRO_BATCH, decode_bare, delivered, few_clips, sealed
from benchmarks.support import WORK, Result, run_alone
from nextscene.common.storage import Storage
from nextscene.shards.format.sample import Sample
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.loader import Loader

ROUNDS = 6
OVER_BARE, OVER_WEBDATASET = 0.9, 1.0
_WORKERS = {"in its own process": 0, "by one worker": 1}
_IDLE_SECONDS = 0.2

Video = torch.Tensor
"""A micro-batch, uint8 [clips, frames, height, width, RGB]."""


@dataclass(frozen=True)
class _Cost:
    """Seconds of an epoch."""

    cpu: float
    wall: float


_Measures = dict[str, Callable[[], _Cost]]
_Round = dict[str, _Cost]


def benchmark(rounds: int | None = None) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        clips = few_clips()
        measures = _measures(clips, sealed(Path(folder), clips))
        done = [_round(measures, place % 2 == 1) for place in range(-1, rounds or ROUNDS)][1:]  # the first warms up
    return [result for how in _WORKERS for result in _results(done, how, len(clips))]


def _measures(clips: list[Sample], out: Storage) -> _Measures:
    dataset = ClipDataset(out.uri, max_frames=MAX_FRAMES)
    tars = [str(out.local_path(shard.path)) for shard in dataset.reader.index.shards]

    def bare() -> _Cost:
        meter = _Meter()
        for clip in clips:
            decode_bare(clip.media, delivered(clip))
        return meter.read()

    measures: _Measures = {"bare PyAV": bare}
    for how, workers in _WORKERS.items():
        measures[f"loader, {how}"] = partial(_epoch, _ours(dataset, workers), clips, works_ahead=workers > 0)
        measures[f"WebDataset, {how}"] = partial(_epoch, _usual(tars, workers), clips, works_ahead=False)
    return measures


def _epoch(batches: Iterator[Video], clips: list[Sample], works_ahead: bool) -> _Cost:
    """Return the cost of an epoch of an endless iterator, in which each clip occurs once."""
    count = len(clips) // MICRO_BATCH
    if works_ahead:
        _shapes(batches, count)  # use up everything that was decoded before the clock starts
    meter = _Meter()
    shapes = _shapes(batches, count)
    cost = meter.read()
    if sum(shape[0] * shape[1] for shape in shapes) != sum(map(delivered, clips)):
        raise RuntimeError(f"the micro-batches are not those of an epoch: {shapes}")
    if works_ahead:
        meter.wait_until_idle()
    return cost


def _shapes(batches: Iterator[Video], count: int) -> list[torch.Size]:
    return [batch.shape for batch in islice(batches, count)]


def _ours(dataset: ClipDataset, workers: int) -> Iterator[Video]:
    for batch in Loader(dataset, micro_batch=MICRO_BATCH, workers=workers):
        yield batch.video


def _round(measures: _Measures, backwards: bool) -> _Round:
    names = list(reversed(measures)) if backwards else list(measures)
    return {name: measures[name]() for name in names}


def _results(done: list[_Round], how: str, clips: int) -> list[Result]:
    def rates(name: str) -> str:
        cpu, wall = (statistics.median(clips / getattr(each[name], of) for each in done) for of in ("cpu", "wall"))
        return f"{name}: {cpu:.1f} clips per CPU-second, {wall:.1f} per second"

    def result(other: str, shown: str, target: float) -> Result:
        ratios = [each[other].cpu / each[loader].cpu for each in done]
        claim = f"clips of the loader, {how}, over {shown}"
        return Result(claim, ratios, target, at_most=False, notes=[f"{rates(loader)}; {rates(other)}"])

    loader = f"loader, {how}"
    return [result("bare PyAV", "bare PyAV", OVER_BARE), result(f"WebDataset, {how}", "WebDataset", OVER_WEBDATASET)]


class _Meter:
    """CPU time of this process and of its workers, and wall-clock time, since it was made."""

    def __init__(self) -> None:
        self._cpu, self._begun = self._used(), time.monotonic()

    def read(self) -> _Cost:
        return _Cost(self._used() - self._cpu, time.monotonic() - self._begun)

    def wait_until_idle(self) -> None:
        """Wait until the workers have prefetched as much as they may, so that the next measurement has the machine
        alone.
        """
        before = -1.0
        while (now := self._used_by_workers()) > before:
            before = now
            time.sleep(_IDLE_SECONDS)

    def _used(self) -> float:
        return time.process_time() + self._used_by_workers()

    @staticmethod
    def _used_by_workers() -> float:
        times = [child.cpu_times() for child in psutil.Process().children()]
        return sum(each.user + each.system for each in times)


# ---- WebDataset as it is commonly used -----------------------------------------------------------------------------


def _usual(tars: list[str], workers: int) -> Iterator[Video]:
    samples = webdataset.WebDataset(tars, shardshuffle=len(tars), workersplitter=webdataset.split_by_worker)
    batches = samples.shuffle(100).map(_decoded).compose(_bucketed)
    epoch = DataLoader(batches, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    while True:
        yield from epoch


def _decoded(sample: dict[str, Any]) -> dict[str, Any]:
    record = json.loads(sample["json"])
    frames = (min(record["frames"], MAX_FRAMES) - 1) // 8 * 8 + 1
    with av.open(io.BytesIO(sample["mp4"]), mode="r") as container:
        container.streams.video[0].codec_context.thread_count = 1
        pictures = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), frames)]
    return {"video": np.stack(pictures), "text": sample["txt"].decode()}


def _bucketed(samples: Iterable[dict[str, Any]]) -> Iterator[Video]:
    waiting: dict[tuple[int, ...], list[Any]] = {}
    for sample in samples:
        alike = waiting.setdefault(sample["video"].shape, [])
        alike.append(sample["video"])
        if len(alike) == MICRO_BATCH:
            yield torch.from_numpy(np.stack(alike))
            alike.clear()


if __name__ == "__main__":
    run_alone(benchmark)
