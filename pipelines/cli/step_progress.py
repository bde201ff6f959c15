"""Progress of a training run in steps, on a terminal or in a log, and the signals that stop it.

Tested in tests/pipelines/test_train.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from nextscene.pipelines.cli.console import err, visible
from nextscene.pipelines.cli.progress import ProgressBar
from nextscene.pipelines.cli.stop_signals import STOPS
from nextscene.training.distributed.torchrun_env import torchrun_has_ended
from nextscene.training.summary import describe_step


class StepProgress:
    """A `training.job.TrainingObserver`: progress in steps, and the signals that stop the run."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar = ProgressBar("steps")
        self._steps = 0
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """True after a signal, and once torchrun has ended without one, as SIGUSR1 or SIGKILL makes it."""
        if not self._stopping and torchrun_has_ended():
            self.stop("torchrun has ended")
        return self._stopping

    def stop(self, why: str) -> None:
        """Set `stopping`, so that the run ends with a checkpoint."""
        self._stopping = True
        with suppress(OSError):  # the terminal may be closed, or the reader of a pipe gone: the checkpoint matters more
            os.write(2, f"{self._name}: {why}: stopping with a checkpoint; Ctrl-C from now on stops at once\n".encode())

    def begin(self, steps: int, done: int) -> None:
        self._steps = steps
        self._bar.begin(steps, done, self._name)

    def note(self, line: str) -> None:
        err.print(f"{self._name}: {visible(line)}", markup=False)

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        numbers_shown = f"{describe_step(numbers)}, {numbers['samples_per_second']:.1f} samples a second"
        line = visible(f"step {step} of {self._steps}, {numbers_shown}")
        self._bar.show(step, f"{self._name}: {numbers_shown}", f"{self._name}: {line}")

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Call `stop` at the first signal. A SIGINT after that ends the run at once."""
        try:
            with STOPS.noted(self.stop):
                yield
        finally:
            self._bar.end()
