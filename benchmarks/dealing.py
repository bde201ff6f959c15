"""Dealing global batches by cost keeps the ranks at work: the share of their time in which they compute.

Simulated: the stage `generator-2`, images and videos of 65 frames in proportion to the sizes of its datasets, in global
batches of 256. The order, the dealing and the FLOPs of each sample are the trainer's own. A turn takes as long as its
slowest rank, since FSDP synchronizes the ranks in each layer. `tokens` are those of a GPU in one pass through the
model: with few of them a pass costs more than its FLOPs. `packed` lets a pass hold more images than the micro-batch, as
many as cost what its videos would; the trainer does not do that.

Measured: the same share of two gloo ranks that train small models on such a mix, by the CPU time of their turns.

Compared with: the order's micro-batches, taken by the ranks in turn, undealt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np
from transformers import Qwen2_5_VLTextConfig

from benchmarks.gpu.case import recipe
from benchmarks.gpu.models import PUBLISHED, ratios
from benchmarks.support import Result, child, run_alone
from nextscene.shards.loading.deal import Group, plan_turns
from nextscene.shards.loading.interleave import WeightedInterleave
from nextscene.shards.loading.mixture import MixtureOrder
from nextscene.shards.loading.shuffle import ShuffleOrder
from nextscene.training.metrics.flops import ModelSizes, flow_matching_flops

ROUNDS = 3
TARGETS = {8: 0.8, 16: 0.7, 32: 0.9, 64: 0.85}
"""Ranks → work over time, dealt, in micro-batches of 8."""
MEASURED = 0.9
_MICRO_BATCHES = (8, 4, 2)
_DATASETS = {"blip3o": 70_000, "vidgen": 10_000, "openvid": 3_100, "opens2v": 13_300}
"""A hundredth of the datasets of `generator-2`. The first one holds images."""
_SHARD, _STEPS, _MEASURED_STEPS = 512, 200, 4
_WAYS = ("undealt", "dealt", "packed")

Turns = Sequence[Sequence[float]]
"""[turns][ranks]: costs."""


class _Sample(NamedTuple):
    """An image or a video of the paper: its FLOPs in the stage, and its tokens."""

    cost: int
    tokens: int


@cache
def _samples() -> tuple[_Sample, _Sample]:
    """Return an image and a video."""
    language = Qwen2_5_VLTextConfig(**PUBLISHED.language)
    found = []
    for shape in (PUBLISHED.image, PUBLISHED.clip):
        tokens = ratios(PUBLISHED).grid(*shape).tokens
        width = PUBLISHED.language["hidden_size"]
        sizes = ModelSizes(PUBLISHED.transformer, language, tokens, PUBLISHED.text, PUBLISHED.queries, width)
        found.append(_Sample(flow_matching_flops(sizes, 1, transformer_trained=True).total, tokens))
    return found[0], found[1]


class _Figures(NamedTuple):
    """What a simulation gives: work over time, passes of each GPU in a step, and its tokens in a pass."""

    work_over_time: float
    passes: float
    tokens: float


def _global_batches(micro_batch: int, seed: int) -> Iterator[list[bool]]:
    """Yield the micro-batches of each global batch, in order: True for videos."""
    orders = [
        ShuffleOrder(np.arange(size) // _SHARD, np.zeros(size, np.int64), micro_batch, seed)
        for size in _DATASETS.values()
    ]
    order = MixtureOrder(tuple(orders), WeightedInterleave(tuple(map(float, _DATASETS.values()))))
    batches, count = order.batches(), recipe("generator-2").data.global_batch // micro_batch
    while True:
        yield [bool(order.bucket[batch[0].number]) for batch in islice(batches, count)]


def simulated(way: str, micro_batch: int, ranks: int, seed: int) -> _Figures:
    """Return the figures of a number of steps."""
    work = time = tokens = passes = 0.0
    for videos in islice(_global_batches(micro_batch, seed), _STEPS):
        turns = _undealt(videos, micro_batch, ranks) if way == "undealt" else _dealt(videos, micro_batch, ranks, way)
        time += sum(max(turn) for turn in turns)
        passes += len(turns)
        for is_video in videos:
            sample = _samples()[is_video]
            work += micro_batch * sample.cost / ranks
            tokens += micro_batch * sample.tokens / ranks
    return _Figures(work / time, passes / _STEPS, tokens / passes)


def _undealt(videos: Sequence[bool], micro_batch: int, ranks: int) -> Turns:
    costs = [float(micro_batch * _samples()[is_video].cost) for is_video in videos]
    return [costs[begin : begin + ranks] for begin in range(0, len(costs), ranks)]


def _dealt(videos: Sequence[bool], micro_batch: int, ranks: int, way: str) -> Turns:
    image, video = _samples()
    images = micro_batch * (len(videos) - sum(videos))
    most = micro_batch * video.cost // image.cost if way == "packed" else micro_batch
    groups = (Group(video.cost, micro_batch * sum(videos), micro_batch), Group(image.cost, images, most))
    present = tuple(group for group in groups if group.samples)
    return [[present[share.group].cost * share.size for share in turn] for turn in plan_turns(present, ranks)]


def benchmark(rounds: int | None = None) -> list[Result]:
    seeds = range(rounds or ROUNDS)
    results = []
    for ranks, target in TARGETS.items():
        dealt = [simulated("dealt", 8, ranks, seed).work_over_time for seed in seeds]
        notes = [
            f"{way}, micro-batch {size}: {figures.work_over_time:.2f}, {figures.passes:.1f} passes a step,"
            f" {figures.tokens:,.0f} tokens"
            for way in _WAYS
            for size in _MICRO_BATCHES
            for figures in [simulated(way, size, ranks, 0)]
        ]
        results.append(Result(f"work over time at {ranks} ranks", dealt, target, at_most=False, notes=notes))
    measured = [child("dealt_steps", str(_MEASURED_STEPS)) for _ in seeds]
    notes = [
        f"{way}: {one[way]['measured']:.2f} measured, {one[way]['simulated']:.2f} simulated"
        for one in measured
        for way in _WAYS[:2]
    ]
    shares = [one["dealt"]["measured"] for one in measured]
    return [*results, Result("… of two gloo ranks, measured", shares, MEASURED, at_most=False, notes=notes)]


if __name__ == "__main__":
    run_alone(benchmark)
