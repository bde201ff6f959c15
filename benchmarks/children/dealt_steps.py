"""Two gloo ranks learn from a mix of images and videos, dealt and undealt: `dealt_steps STEPS`.

It prints, for both ways, what share of the ranks' time is work: by the CPU time of each turn, which other programs do
not change, and as simulated from the FLOPs.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from diffusers import FlowMatchEulerDiscreteScheduler

from benchmarks.gpu.case import recipe
from benchmarks.gpu.models import SCHEDULER, TOY, AnyWords, unified, vae
from nextscene.shards.loading.buckets import assign_buckets
from nextscene.shards.loading.deal import Dealing
from nextscene.shards.loading.loader import Loader
from nextscene.shards.loading.sample_set import ArraySpec, Memory, SampleText
from nextscene.shards.loading.shuffle import IntArray, ShuffleOrder
from nextscene.training.config import DataConfig, ParallelConfig
from nextscene.training.data.batches import BatchEncoder, BatchPreparer, TrainingBatch
from nextscene.training.distributed.parallelize import parallelize
from nextscene.training.distributed.process_group import World, current_world
from nextscene.training.metrics.costs import sample_costs
from nextscene.training.objectives.flow_matching import FlowMatching
from nextscene.training.recipe import Recipe

_RANKS = 2
_WIDTH, _LAYERS, _IMAGE, _VIDEO = 128, 2, (1, 16, 16), (5, 16, 16)  # frames, width and height of latents
_VIDEOS_OF_TEN = 3
_SIZE = replace(
    TOY,
    transformer={
        **TOY.transformer,
        "attention_head_dim": _WIDTH // TOY.transformer["num_attention_heads"],
        "cross_attention_dim": _WIDTH,
        "num_layers": _LAYERS,
    },
)


class _Latents:
    """A `SampleSet` of random latents in memory, of images and videos."""

    fingerprint = 0

    def __init__(self, samples: int) -> None:
        self.shapes = np.array([_VIDEO if number % 10 < _VIDEOS_OF_TEN else _IMAGE for number in range(samples)])

    def batch_order(self, micro_batch: int, seed: int, window: int) -> ShuffleOrder:
        return ShuffleOrder(np.zeros(len(self.shapes), np.int64), assign_buckets(self.shapes), micro_batch, seed)

    def array_spec(self, number: int) -> ArraySpec:
        frames, width, height = map(int, self.shapes[number])
        return ArraySpec((_SIZE.vae["latent_channels"] + 1, frames, height, width), "float16")

    def decode_into(self, memory: Memory, number: int) -> SampleText:
        memory[:] = np.random.default_rng(number).standard_normal(memory.shape)
        return SampleText("a scene", "a caption", 16.0, str(number))


class _Turns:
    """A stand-in for the throughput that notes the CPU time and the FLOPs of each turn. Waiting takes no CPU time."""

    def __init__(self, costs: IntArray) -> None:
        self._costs, self._begun = costs, time.thread_time()
        self.done: list[tuple[float, float, float]] = []
        """[turns]: the weight, the CPU seconds and the FLOPs of each."""

    def count_micro_batch(self, batch: TrainingBatch) -> None:
        now = time.thread_time()
        flops = float(sum(self._costs[ref.number] for ref in batch.refs))
        self.done.append((batch.weight, now - self._begun, flops))
        self._begun = time.thread_time()

    def restart(self) -> None:
        self._begun = time.thread_time()


def _work_over_time(turns: list[list[tuple[float, float, float]]], column: int) -> float:
    """Return the mean work of the ranks over the sum of the slowest of each turn. `turns` is [ranks][turns]."""
    work = sum(turn[0] * turn[column] for own in turns for turn in own) / len(turns)
    return float(work / sum(max(turn[column] for turn in each) for each in zip(*turns, strict=True)))


def _in_turns(batches: Iterator[TrainingBatch], turns: int) -> Iterator[TrainingBatch]:
    """Yield micro-batches that are not dealt, each with whether it is the last of its step."""
    return (batch._replace(last=number % turns == turns - 1) for number, batch in zip(count(), batches, strict=False))


def _measured(world: World, settings: Recipe, steps: int, dealing: bool) -> dict[str, float]:
    model = unified(_SIZE, settings, world.device)
    clips = _Latents(settings.data.global_batch * (steps + 1))
    autoencoder = vae(_SIZE, world.device, model.dtype)
    costs = sample_costs(model, {}, settings, clips.shapes, encoded=True)
    parallelize(model, settings.parallel, world)
    dealt = Dealing(settings.data.global_batch, costs) if dealing else None
    micro_batch = settings.data.micro_batch
    loader = Loader(clips, micro_batch=micro_batch, rank=world.rank, world=world.size, dealing=dealt)
    encoder = BatchEncoder(autoencoder, cast(Any, AnyWords(_SIZE)), settings.mix, world.device)
    scheduler = FlowMatchEulerDiscreteScheduler(**SCHEDULER)
    prepared = iter(BatchPreparer(loader, encoder, settings.objective, scheduler, settings.seed))
    batches = prepared if dealing else _in_turns(prepared, settings.data.global_batch // micro_batch // world.size)
    turns = _Turns(costs)
    state = SimpleNamespace(world=world, model=model, job=SimpleNamespace(recipe=settings))
    objective = FlowMatching(cast(Any, state), cast(Any, turns))
    objective.compute_gradient(batches, 0)  # the first step warms up
    turns.done.clear()
    for step in range(1, steps + 1):
        turns.restart()
        objective.compute_gradient(batches, step)
    prepared.close()
    of_all: list[list[tuple[float, float, float]]] = [[] for _ in range(world.size)]
    dist.all_gather_object(of_all, turns.done)
    return {"measured": _work_over_time(of_all, 1), "simulated": _work_over_time(of_all, 2)}


def _rank(rank: int, steps: int, store: Path, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store.as_uri(), world_size=_RANKS, rank=rank)
    settings = replace(
        recipe("generator-2"),
        data=DataConfig(micro_batch=4, global_batch=32),
        parallel=ParallelConfig(precision="fp32", checkpointing="none", compile=False),
    )
    figures = {name: _measured(current_world(), settings, steps, name == "dealt") for name in ("dealt", "undealt")}
    if rank == 0:
        out.write_text(json.dumps(figures))
    dist.destroy_process_group()


def main(steps: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        store, out = Path(folder, "store"), Path(folder, "figures.json")
        ranks = [spawn.Process(target=_rank, args=(rank, steps, store, out)) for rank in range(_RANKS)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        print(out.read_text())


if __name__ == "__main__":
    main(int(sys.argv[1]))
