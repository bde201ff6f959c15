"""How long the stage `rl` takes at the published size, on one GPU, with random weights: one group, and what it teaches.

Measured, by the recipe `rl`, for one scene whose clip has 65 frames of 832×480: the time to sample 24 candidates in 20
guided steps and decode them; the time of one optimizer step from the 8 selected candidates, over 11 of their steps; and
the peak memory of both. The reward is a stand-in that takes no time. `ratio_off` is the largest difference of the
probability ratio from 1. The ratio would be exactly 1 if repeated computation gave the same rounding.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import click
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from benchmarks.gpu import models
from benchmarks.gpu.case import recipe
from benchmarks.gpu.models import PUBLISHED, SCHEDULER, TOY, AnyWords, Size
from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.data.batches import BatchEncoder, TrainingBatch
from nextscene.training.distributed.parallelize import parallelize
from nextscene.training.distributed.process_group import World, process_group
from nextscene.training.model.grid import Grid
from nextscene.training.model.trainable import trained_parameters
from nextscene.training.model.unified import coordinates
from nextscene.training.objectives.grpo import grpo
from nextscene.training.optimizer.build import build_optimizer
from nextscene.training.optimizer.ema import EMA
from nextscene.training.recipe import Recipe
from nextscene.training.rewards.base import Candidate, RewardVerdict


class Coin:
    """A reward that passes every other candidate at once. `asked` has the time at which each candidate arrived."""

    name = "coin"

    def __init__(self) -> None:
        self.asked: list[float] = []

    def ask(self, candidates: Sequence[Candidate]) -> None:
        self.asked += [time.perf_counter()] * len(candidates)

    def verdicts(self) -> list[RewardVerdict]:
        return [RewardVerdict(float(number % 2), "tossed") for number in range(len(self.asked))]

    def close(self) -> None: ...


def measured(size: Size, settings: Recipe, world: World, folder: Path) -> dict[str, Any]:
    """Sample a group, take one optimizer step, and return the times in seconds, the metrics and the peak memory."""
    model = models.unified(size, settings, world.device)
    parallelize(model, settings.parallel, world)
    learned = trained_parameters(model)
    chosen = build_optimizer(learned, settings.optimizer)
    start = EMA(learned, 1.0)
    vae = models.vae(size, world.device, model.dtype)
    encoder = BatchEncoder(vae, cast(Any, AnyWords(size)), settings.mix, world.device)
    coin = Coin()
    state = SimpleNamespace(
        job=SimpleNamespace(recipe=settings, folder=folder),
        world=world,
        model=model,
        encoder=encoder,
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        reference_weights=start.swapped_in,
        reward=coin,
        check_stop=lambda: None,
    )
    method = grpo.Grpo(cast(Any, state), cast(Any, SimpleNamespace(count_group=lambda *_: None)))
    begun = time.perf_counter()
    output = method.compute_gradient(_scenes(size, encoder), 0)
    norm = torch.nn.utils.clip_grad_norm_(list(learned.values()), settings.optimizer.max_grad_norm)
    chosen.step()
    chosen.zero_grad()
    length = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # waits until the device is done
    ended = time.perf_counter()
    method.close()
    figures: dict[str, Any] = {
        "candidates": settings.policy.group_size,
        "group_seconds": coin.asked[-1] - begun,
        "update_seconds": ended - coin.asked[-1],
        "gradient_norm": length,
        **output.metrics,
    }
    if world.device.type == "cuda":
        figures["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        figures["device"] = torch.cuda.get_device_name()
    return figures


def _scenes(size: Size, encoder: BatchEncoder) -> Iterator[TrainingBatch]:
    frames, height, width = size.clip
    ratios = models.ratios(size)
    grid: Grid = ratios.grid(frames, height, width)
    words, fps = encoder.tokenize([""], [0]), torch.full((1,), 16.0, device=encoder.device)
    coords = coordinates(grid, ratios, fps)
    while True:
        clean, noise = torch.randn(2, 1, grid.tokens, size.transformer["in_channels"], device=encoder.device)
        sigma = torch.rand(1, device=encoder.device)
        yield TrainingBatch(words, ["a"], [0], [SampleRef(0, 0)], clean, noise, sigma, fps, coords, grid, ["clip"], 0)


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the figures go, as JSON.")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), default="bf16", show_default=True)
@click.option("--toy", is_flag=True, help="Small models, which a CPU can do: whether it runs, not how fast.")
def main(out: Path, precision: Literal["bf16", "fp32"], toy: bool) -> None:
    settings = recipe("rl")
    settings = replace(settings, parallel=replace(settings.parallel, precision=precision))
    if toy:
        settings = replace(settings, policy=replace(settings.policy, group_size=4, best_of=2, steps=4))
    settings = replace(settings, data=replace(settings.data, global_batch=1))
    with process_group() as world, tempfile.TemporaryDirectory() as folder:
        figures = measured(TOY if toy else PUBLISHED, settings, world, Path(folder))
    out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(figures))


if __name__ == "__main__":
    main()
