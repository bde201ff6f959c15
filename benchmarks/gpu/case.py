"""One case of `benchmarks.gpu.stage_steps`, in a separate process so that the peak memory is that of this case."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal, cast

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from torch._dynamo.utils import counters
from torch.distributed.tensor import DTensor

import nextscene.training.recipe
from benchmarks.gpu.models import PUBLISHED, SCHEDULER, TOY, AnyWords, Size, unified, vae
from benchmarks.one_sequence import states_of_queries
from nextscene.pipelines.cli.options import chosen
from nextscene.shards.loading.collate import Batch
from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.data.batches import BatchEncoder, BatchPreparer
from nextscene.training.distributed.parallelize import parallelize
from nextscene.training.distributed.process_group import World, process_group
from nextscene.training.flow.objective import loss_per_sample, noised
from nextscene.training.metrics.costs import model_sizes
from nextscene.training.metrics.flops import StepFlops, flow_matching_flops, peak_flops
from nextscene.training.model.language import TokenBatch
from nextscene.training.model.trainable import trained_parameters
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.optimizer.build import build_optimizer
from nextscene.training.optimizer.ema import EMA
from nextscene.training.recipe import Recipe

WARM_UP, ROUNDS = 2, 3
_RECIPES = Path(nextscene.training.recipe.__file__).parent / "recipes"
_FPS = 24.0


@dataclass(frozen=True)
class Case:
    """A step of a stage.

    `reading` is the way in which Qwen reads the text: `once` without gradient, before the queries, as in our training;
    `plain`, in one sequence with the queries; `padded`, in one sequence with the queries after padding.
    """

    stage: Literal["connector", "sft"]
    reading: Literal["once", "plain", "padded"]
    compiled: bool
    micro_batch: int

    def __str__(self) -> str:
        how = "compiled" if self.compiled else "not compiled"
        return f"{self.stage}, text read {self.reading}, {how}, micro-batch {self.micro_batch}"


def recipe(stage: str) -> Recipe:
    """Return the paper's recipe of a stage."""
    return chosen(Recipe, _RECIPES / f"{stage}.toml", {})


def measured(case: Case, size: Size) -> dict[str, Any]:
    """Return the case and its figures. `fits` is False, and there are no figures, if it runs out of GPU memory."""
    with process_group() as world:
        try:
            return asdict(case) | {"fits": True} | _figures(case, size, world)
        except torch.OutOfMemoryError as error:
            _note(f"{case}: does not fit: {error}")
            return asdict(case) | {"fits": False}


def _figures(case: Case, size: Size, world: World) -> dict[str, Any]:
    begun = time.perf_counter()
    step = _Step(case, size, world)
    _note(f"{case}: built in {time.perf_counter() - begun:.1f} s")
    seconds = []
    for turn in range(WARM_UP + ROUNDS):
        if turn == WARM_UP and world.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        loss = step.take()
        seconds.append(time.perf_counter() - begun)
        _note(f"{case}: step {turn + 1} in {seconds[-1]:.3f} s, loss {loss:.3f}")
    median = statistics.median(seconds[WARM_UP:])
    figures: dict[str, Any] = {
        "tokens": step.grid.tokens,
        "first_seconds": seconds[0],
        "rounds": seconds[WARM_UP:],
        "seconds": median,
        "samples_per_second": case.micro_batch / median,
        "loss": loss,
        "graphs": counters["stats"]["unique_graphs"],  # 0 means that nothing was compiled
    }
    if world.device.type != "cuda":
        return figures
    name = torch.cuda.get_device_name()
    figures |= {"device": name, "torch": torch.__version__, "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9}
    peak = peak_flops(name, step.model.dtype)
    if peak and case.reading == "once":
        figures |= {"tflop": step.work.total / 1e12, "mfu": step.work.total / median / peak}
    return figures


class _Latents:
    """A stand-in for the loader: the same micro-batch of stored latents again and again, each time in a new epoch."""

    def __init__(self, clips: int, shape: tuple[int, ...]) -> None:
        self._latents = torch.randn(clips, *shape).half()

    def __iter__(self) -> Iterator[Batch]:
        clips = len(self._latents)
        keys, sources, fps = ["clip"] * clips, [0] * clips, [_FPS] * clips
        for epoch in count():
            refs = [SampleRef(number, epoch) for number in range(clips)]
            yield Batch(self._latents, keys, keys, fps, keys, sources, refs, [])

    def state_dict(self) -> dict[str, int]:
        return {}


class _Step:
    """A model and the micro-batches to take optimizer steps on, as `training.trainer` does, without accumulation.

    Each micro-batch is prepared by `training.data.batches`, one ahead.
    """

    def __init__(self, case: Case, size: Size, world: World) -> None:
        settings = recipe(case.stage)
        settings = replace(settings, parallel=replace(settings.parallel, compile=case.compiled))
        self.model = unified(size, settings, world.device)
        parallelize(self.model, settings.parallel, world)
        self._condition = _reader(self.model, case, size)
        learned = trained_parameters(self.model)
        self._parameters = list(learned.values())
        self._clip = settings.optimizer.max_grad_norm
        self._optimizer = build_optimizer(learned, settings.optimizer)
        self._average = EMA(learned, settings.optimizer.ema)
        self._clips = case.micro_batch
        self.grid = self.model.ratios.grid(*(size.image if case.stage == "connector" else size.clip))
        encoder = BatchEncoder(
            vae(size, world.device, self.model.dtype), cast(Any, AnyWords(size)), settings.mix, world.device
        )
        latents = _Latents(self._clips, (size.vae["latent_channels"] + 1, *self.grid))
        scheduler = FlowMatchEulerDiscreteScheduler(**SCHEDULER)
        preparer = BatchPreparer(cast(Any, latents), encoder, settings.objective, scheduler, settings.seed)
        self._batches, self._prefix = iter(preparer), size.text

    def take(self) -> float:
        """Take one step and return its loss. Wait until the device is done."""
        batch = next(self._batches)
        noisy, condition = noised(batch.clean, batch.noise, batch.sigma), self._condition(batch.text_tokens)
        predicted = self.model.velocity(noisy, batch.sigma, condition, batch.coords)
        loss = loss_per_sample(predicted, batch.clean, batch.noise).mean()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        length = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not math.isfinite(length + loss.item()):
            raise ArithmeticError(f"a loss of {loss.item()}, and a gradient of norm {length}")
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._average.update()
        if batch.clean.is_cuda:
            torch.cuda.synchronize()
        return loss.item()

    @property
    def work(self) -> StepFlops:
        """The FLOPs of the step."""
        sizes = model_sizes(self.model, self.grid, self._prefix)
        return flow_matching_flops(sizes, self._clips, self.model.trains_transformer)


def _reader(model: UnifiedModel, case: Case, size: Size) -> Callable[[TokenBatch], Tensor]:
    if case.reading == "once":
        return model.condition
    padding = size.most - size.text - size.queries if case.reading == "padded" else 0

    def condition(words: TokenBatch) -> Tensor:
        queries = model.bridge.queries(len(words.ids))
        condition: Tensor = model.bridge.connector(states_of_queries(model.language, words.ids, queries, padding))
        return condition

    return condition


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(json.dumps(measured(Case(**json.loads(sys.argv[1])), TOY if "--toy" in sys.argv[2:] else PUBLISHED)))
