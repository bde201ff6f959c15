"""The description of a training job, and the interface of its observer.

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

    `data` maps the name of each dataset of the mix to its location, `latents` the names of some of them to that of
    their latents, if these are not below the dataset. `init` is the checkpoint whose weights training
    starts from, or None. With `resume`, training continues from the newest checkpoint of this same stage, if there is
    one. `budget` limits the cost of the judge in the stage `rl`, in US dollars by `prices`, over all attempts together;
    None means no limit. `owner` is the owner that the lock of `run` must name whenever something is written there; ""
    if there is no lock. `prompts` are texts of the user's own, for which each evaluation makes a video.
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
    latents: Mapping[str, str] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()

    def check_owner(self) -> None:
        """Raise TrainingStopped if the lock of `run` was lost, as can happen while a process is suspended for long."""
        if self.owner:
            try:
                self._fenced_run().check_may_write()
            except StorageFault as fault:
                raise TrainingStopped(str(fault)) from fault

    def _fenced_run(self) -> Storage:
        run = Storage.at(self.run)
        return run.with_fence(LOCK, self.owner) if self.owner else run

    def write_page(self) -> None:
        """Write the page about the run. Raise StorageFault, also if the lock was lost."""
        from nextscene.training.report.make import write_run_report  # imported late: a page is not made by each command

        write_run_report(self._fenced_run())

    @property
    def folder(self) -> Path:
        """The folder of the stage in the run."""
        return self.run / self.recipe.name

    @property
    def metrics(self) -> Path:
        """The file of the stage's metrics."""
        return self.folder / METRICS

    @property
    def checkpoints(self) -> Path:
        """The folder of the stage's checkpoints."""
        return checkpoints(self.run, self.recipe.name)


class TrainingObserver(Protocol):
    """An observer of a run. The leading process reports progress to it; every process asks it whether to stop."""

    def begin(self, steps: int, done: int) -> None:
        """Report the start of a run of `steps` steps. `done` of them are already in a checkpoint."""

    def note(self, line: str) -> None:
        """Report a line of text."""

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        """Report that step number `step` is done, with its metrics."""

    @property
    def stopping(self) -> bool:
        """True once the run is to end with a checkpoint: after this step, or with this step given up if it is long."""
