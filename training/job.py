"""What a run of a stage is told, and who watches it.

Tested in tests/training/test_trainer.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from nextscene.common.fence import LOCK
from nextscene.common.storage import Storage, StorageFault
from nextscene.judge.spending.prices import Prices
from nextscene.training.checkpoint_info import METRICS, checkpoints
from nextscene.training.errors import TrainingStopped
from nextscene.training.model.pretrained import PretrainedModels
from nextscene.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingJob:
    """One stage, to be trained into `run`/<recipe>.

    `data` gives each dataset of the mix its location. `init` is the checkpoint whose weights are begun with, if any;
    `resume` goes on from the newest checkpoint of this very stage, where there is one. `budget`, in US dollars, bounds
    what the judge of the stage `rl` may cost by `prices`, in all tries together; None is no bound. `owner` is what the
    lock of `run` must name whenever something is written there; "" where there is no lock.
    """

    recipe: Recipe
    data: Mapping[str, str]
    run: Path
    pretrained: PretrainedModels
    init: Path | None
    resume: bool
    budget: Decimal | None = None
    prices: Prices = field(default_factory=Prices.load)
    owner: str = ""

    def check_owner(self) -> None:
        """Raise TrainingStopped where the lock of `run` was lost: a training that was stopped for long may have."""
        if self.owner:
            try:
                Storage.at(self.run).with_fence(LOCK, self.owner).check_may_write()
            except StorageFault as fault:
                raise TrainingStopped(str(fault)) from fault

    @property
    def folder(self) -> Path:
        return self.run / self.recipe.name

    @property
    def metrics(self) -> Path:
        return self.folder / METRICS

    @property
    def checkpoints(self) -> Path:
        return checkpoints(self.run, self.recipe.name)


class TrainingObserver(Protocol):
    """Told on the leading process how the run goes; asked on each whether it is to stop."""

    def begin(self, steps: int, done: int) -> None:
        """Of `steps` steps, `done` stand in a checkpoint."""

    def note(self, line: str) -> None:
        """Something worth a line."""

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        """A step was taken."""

    @property
    def stopping(self) -> bool:
        """Whether the run is to end after this step, with a checkpoint."""
