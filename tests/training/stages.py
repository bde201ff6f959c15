"""A stage small enough for a test: a dozen clips, the toy pretrained, a recipe to be changed where a test wants it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nextscene.shards.format.layout import ShardName
from nextscene.training.config import (
    DataConfig,
    LoggingConfig,
    MixConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ParallelConfig,
)
from nextscene.training.distributed.process_group import current_world, process_group
from nextscene.training.job import TrainingJob
from nextscene.training.model.pretrained import PretrainedModels
from nextscene.training.recipe import Recipe
from nextscene.training.summary import StageSummary
from nextscene.training.trainer import train
from tests.shards.clips import clip
from tests.shards.samples import seal_dataset
from tests.training.pretrained import make_originals
from tests.training.ranks import run

SMALL = Recipe(
    name="generator",
    stage="generator",
    steps=4,
    mix=(MixConfig(text="caption", prompt="t2v"),),
    data=DataConfig(micro_batch=1, global_batch=4, max_frames=9, width=32, height=24, workers=0),
    model=ModelConfig(queries=4, max_tokens=256),
    objective=ObjectiveConfig(dropout=0.25),
    optimizer=OptimizerConfig(ema=0.9),
    parallel=ParallelConfig(precision="fp32", checkpointing="none", compile=False),
    logging=LoggingConfig(checkpoint_every=2, evaluate_every=0, evaluate_clips=3, sample_clips=1, sample_steps=2),
)
"""The VAE of the tests folds 4 frames and 4 pixels of a side: 9 frames of 32×24 are 3×6×8 tokens."""


class Quiet:
    """A observer that keeps what it is told, and wants the run to stop after a step, if any."""

    def __init__(self, stop_after: int = -1) -> None:
        self.notes: list[str] = []
        self.losses: dict[int, float] = {}
        self._stop_after = stop_after
        self._step = 0

    def begin(self, steps: int, done: int) -> None:
        self._step = done

    def note(self, line: str) -> None:
        self.notes.append(line)

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        self.losses[step] = numbers["loss"]
        self._step = step

    @property
    def stopping(self) -> bool:
        return self._step == self._stop_after


def make_data(folder: Path) -> Path:
    """Eleven clips of 9 frames and two images to learn from, and three clips held out."""
    lengths = [9] * 11 + [1, 1]
    clips = [clip(number, frames, *((32, 32) if frames == 1 else (64, 48))) for number, frames in enumerate(lengths)]
    heldout = [clip(20 + number, 9) for number in range(3)]
    shards = {ShardName("train", 0): clips[:6], ShardName("train", 1): clips[6:], ShardName("test", 0): heldout}
    seal_dataset(folder, shards)
    return folder


def make_job(
    data: Path, pretrained: PretrainedModels, run: Path, recipe: Recipe = SMALL, **changes: Any
) -> TrainingJob:
    return TrainingJob(
        recipe,
        {mix.name: str(data) for mix in recipe.mix},
        run,
        pretrained,
        **{"init": None, "resume": False, **changes},
    )


@dataclass(frozen=True)
class Stage:
    """A folder of runs over the same clips and pretrained, by the `usual` recipe or another."""

    folder: Path
    data: Path
    pretrained: PretrainedModels
    usual: Recipe

    @staticmethod
    def made(folder: Path, usual: Recipe) -> Stage:
        return Stage(folder, make_data(folder / "data"), make_originals(folder / "originals"), usual)

    def job(self, name: str, recipe: Recipe | None = None, **changes: Any) -> TrainingJob:
        return make_job(self.data, self.pretrained, self.folder / name, recipe or self.usual, **changes)


def on_rank(rank: int, world: int, job: TrainingJob, stop_after: int = -1) -> tuple[StageSummary, Quiet]:
    """For `by_ranks` and `tests.training.ranks.run`."""
    observer = Quiet(stop_after)
    torch.use_deterministic_algorithms(mode=True)
    try:
        return train(job, current_world(), observer), observer
    finally:
        torch.use_deterministic_algorithms(mode=False)


def by_ranks(world: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the first of so many ranks returns. One alone is this process, which has all imported and warm."""
    if world > 1:
        return run(function, world, *arguments)[0]
    with process_group():
        return function(0, 1, *arguments)


__all__ = ["SMALL", "Quiet", "Stage", "by_ranks", "make_data", "make_job", "make_originals", "on_rank", "replace"]
