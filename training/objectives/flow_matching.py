"""Learning from clips: the flow-matching loss of a global batch, whatever the ranks have of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from nextscene.training.data.batches import TrainingBatch
from nextscene.training.distributed.parallelize import sharded
from nextscene.training.flow.objective import loss_per_sample, noised
from nextscene.training.metrics.logger import BUCKETS, bucket_name
from nextscene.training.metrics.throughput import Throughput
from nextscene.training.objectives.base import StepOutput
from nextscene.training.stage import StageState


class FlowMatching:
    """The method of all stages but `rl`."""

    def __init__(self, setting: StageState, meter: Throughput) -> None:
        self._setting, self._meter = setting, meter

    def learn(self, feed: Iterator[TrainingBatch], step: int) -> StepOutput:
        """The losses are told by noise level too."""
        setting, world = self._setting, self._setting.world
        sums = torch.zeros(2, BUCKETS, device=world.device)
        keys: list[str] = []
        for turn in range(setting.accumulation):
            examples = next(feed)
            for part in sharded(setting.model):
                part.set_requires_gradient_sync(turn == setting.accumulation - 1)
            noisy = noised(examples.clean, examples.noise, examples.sigma)
            predicted = setting.model(examples.words, noisy, examples.sigma, examples.grid, examples.fps)
            losses = loss_per_sample(predicted, examples.clean, examples.noise)
            # The gradients of the ranks are averaged, so each counts for as many.
            torch.autograd.backward(losses.sum() * (world.size / setting.job.recipe.data.global_batch))
            bucket = (examples.sigma * BUCKETS).long().clamp(max=BUCKETS - 1)
            sums[0].index_add_(0, bucket, losses.detach())
            sums[1].index_add_(0, bucket, torch.ones_like(losses))
            self._meter.count_learning(examples)
            keys += examples.keys
        losses, counts = world.summed(sums).tolist()
        numbers = {
            bucket_name(level): total / count if count else math.nan
            for level, (total, count) in enumerate(zip(losses, counts, strict=True))
        }
        return StepOutput(sum(losses) / sum(counts), numbers, keys)

    def end(self) -> None:
        """Nothing is held."""
