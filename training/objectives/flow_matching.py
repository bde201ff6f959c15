"""The flow-matching objective: its loss over a global batch, by gradient accumulation over micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from nextscene.training.data.batches import TrainingBatch, one_step
from nextscene.training.distributed.parallelize import sharded_modules
from nextscene.training.flow.objective import loss_per_sample, noised
from nextscene.training.machine_faults import memory_for
from nextscene.training.metrics.log_file import SIGMA_BUCKETS, sigma_bucket_name
from nextscene.training.metrics.throughput import Throughput
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.objectives.base import StepOutput
from nextscene.training.stage import StageState


def sample_losses(model: UnifiedModel, batch: TrainingBatch) -> Tensor:
    """Return the loss of each sample of a micro-batch, [B]."""
    noisy = noised(batch.clean, batch.noise, batch.sigma)
    predicted = model(batch.text_tokens, noisy, batch.sigma, batch.coords)
    return loss_per_sample(predicted, batch.clean, batch.noise)


class FlowMatching:
    """The objective of all stages but reinforcement learning."""

    def __init__(self, state: StageState, throughput: Throughput) -> None:
        self._state, self._throughput = state, throughput

    def compute_gradient(self, batches: Iterator[TrainingBatch], step: int) -> StepOutput:
        """Accumulate the gradient of a global batch. The metrics are the mean losses of the ranges of noise levels."""
        state, world = self._state, self._state.world
        sums = torch.zeros(2, SIGMA_BUCKETS, device=world.device)
        keys: list[str] = []
        for batch in one_step(batches):
            for part in sharded_modules(state.model):
                part.set_requires_gradient_sync(batch.last)
            with memory_for(partial(batch.describe, state.model.ratios)):
                losses = batch.weight * sample_losses(state.model, batch)
                # FSDP averages the gradients over the ranks, so the loss is multiplied by `world.size` to give the sum.
                torch.autograd.backward(losses.sum() * (world.size / state.job.recipe.data.global_batch))
            bucket = (batch.sigma * SIGMA_BUCKETS).long().clamp(max=SIGMA_BUCKETS - 1)
            sums[0].index_add_(0, bucket, losses.detach())
            sums[1].index_add_(0, bucket, torch.full_like(losses, batch.weight))
            self._throughput.count_micro_batch(batch)
            keys += batch.keys
        losses, counts = world.all_reduce_sum(sums).tolist()
        metrics = {
            sigma_bucket_name(level): total / count if count else math.nan
            for level, (total, count) in enumerate(zip(losses, counts, strict=True))
        }
        return StepOutput(sum(losses) / sum(counts), metrics, keys)

    def flush(self) -> None:
        """Do nothing: nothing is done in the background."""

    def close(self) -> None:
        """Do nothing: the objective has no resources to release."""
