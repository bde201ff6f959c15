"""A training stage, ready for its next step: model, optimizer, data and averages, and what a checkpoint has of them.

`build_stage` makes it. Tested in tests/training/test_trainer.py and tests/training/test_checkpoint.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from nextscene.shards.loading.loader import Loader
from nextscene.training.checkpoint_info import CheckpointInfo
from nextscene.training.data.batches import BatchEncoder, BatchPreparer
from nextscene.training.distributed.process_group import World
from nextscene.training.errors import StopRequested
from nextscene.training.job import TrainingJob, TrainingObserver
from nextscene.training.model.model_folders import architecture_config
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.optimizer.build import state_tensors
from nextscene.training.optimizer.ema import EMA
from nextscene.training.optimizer.sharding import local_part
from nextscene.training.rewards.base import Reward
from nextscene.training.validation import Validator


@dataclass
class StageState:
    """A stage, ready for its next step.

    `saved_parameters` names the parameters that differ from the pretrained models: all that this stage and earlier
    stages trained, and the whole bridge. `reference` keeps the initial weights of a stage of reinforcement learning,
    the reference model of its KL divergence. `heldout` and `seen` validate on clips of the test split and of the
    training split.
    """

    job: TrainingJob
    world: World
    model: UnifiedModel
    trained_parameters: dict[str, nn.Parameter]
    saved_parameters: list[str]
    optimizer: torch.optim.Optimizer
    ema: EMA | None
    reference: EMA | None
    loader: Loader
    encoder: BatchEncoder
    scheduler: FlowMatchEulerDiscreteScheduler
    batches: BatchPreparer
    reward: Reward | None
    heldout: Validator | None
    seen: Validator | None
    step: int
    steps: int
    observer: TrainingObserver

    def check_stop(self) -> None:
        """Raise StopRequested, on all ranks alike, if the run was asked to stop: its step may be given up here.

        All ranks call this alike.
        """
        if self.world.any_rank(self.observer.stopping):
            raise StopRequested

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of a checkpoint, by its name in the checkpoint, sharded as it is in memory."""
        named = dict(self.model.named_parameters())
        found = {f"model.{name}": named[name].detach() for name in self.saved_parameters}
        state = state_tensors(self.optimizer, self.trained_parameters)
        found |= {f"optimiser.{name}": value for name, value in state.items()}
        if self.ema:
            found |= {f"average.{name}": value for name, value in self.ema.shadows.items()}
        if self.reference:
            found |= {f"start.{name}": value for name, value in self.reference.shadows.items()}
        return found

    def has_finite_weights(self) -> bool:
        """Return True if all trained weights of this rank, and their averages, are finite."""
        averages = self.ema.shadows.values() if self.ema else ()
        parts = [local_part(value.detach()) for value in (*self.trained_parameters.values(), *averages)]
        parts = [part for part in parts if part.numel()]  # a rank may have none
        return not parts or math.isfinite(torch.stack(torch._foreach_norm(parts, ord=math.inf)).max().item())

    def checkpoint_info(self, step: int, loader: Mapping[str, int]) -> CheckpointInfo:
        """Return the description of a checkpoint after `step` steps, with the state of the loader at that step."""
        recipe = self.job.recipe
        return CheckpointInfo(
            recipe=recipe.name,
            stage=recipe.stage,
            step=step,
            samples=step * recipe.data.global_batch,
            world=self.world.size,
            model=self.job.pretrained.fingerprint,
            bridge=bridge_config(self.model),
            parameters=self.saved_parameters,
            averaged=sorted(self.ema.shadows) if self.ema else [],
            determining=recipe.identity_settings(),
            loader=dict(loader),
            average_updates=self.ema.updates if self.ema and self.ema.warm_up else None,
            settings=recipe.all_settings(),
        )

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Put the averaged weights (EMA) into the model, if there are any, for validation and export."""
        if self.ema:
            with self.ema.swapped_in():
                yield
        else:
            yield

    @contextmanager
    def reference_weights(self) -> Iterator[None]:
        """Put the weights of the reference model into the model. Only for a stage of reinforcement learning."""
        assert self.reference  # noqa: S101 – every such stage has it
        with self.reference.swapped_in():
            yield

    def export_weights(self) -> dict[str, Tensor]:
        """Return full tensors on the CPU, averaged if there is an average. All ranks but the leader return none."""
        with self.ema_weights():
            named = dict(self.model.named_parameters())
            whole: dict[str, Tensor] = {}
            for name in self.saved_parameters:
                value = named[name].detach()
                full = value.full_tensor() if isinstance(value, DTensor) else value
                if self.world.is_leader:
                    whole[name] = full.to("cpu", copy=True)
        return whole


def bridge_config(model: UnifiedModel) -> dict[str, Any]:
    """Return the architecture of the model's bridge, as checkpoints record it."""
    return architecture_config(model.bridge.config)
