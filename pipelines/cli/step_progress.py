"""A training run's progress in steps, on a terminal or in a log, and the signals that have it stop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nextscene.pipelines.cli.console import err, visible
from nextscene.pipelines.cli.stop_signals import STOPS
from nextscene.training.summary import describe_step

_LINE_EVERY_SECONDS = 5.0


class StepProgress:
    """A `training.job.Watcher`: a live bar on a terminal, otherwise a line every few seconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Progress | None = None
        self._steps = 0
        self._told = time.monotonic()
        self.stopping = False

    def begin(self, steps: int, done: int) -> None:
        self._steps = steps
        if err.is_terminal and done < steps:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=err,
                transient=True,
            )
            self._task = self._bar.add_task(self._name, total=steps, completed=done)
            self._bar.start()

    def note(self, line: str) -> None:
        err.print(f"{self._name}: {visible(line)}", markup=False)

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        how = f"{describe_step(numbers)}, {numbers['samples_per_second']:.1f} samples a second"
        if self._bar:
            self._bar.update(self._task, completed=step, description=f"{self._name}: {how}")
        elif time.monotonic() - self._told >= _LINE_EVERY_SECONDS:
            self._told = time.monotonic()
            self.note(f"step {step} of {self._steps}, {how}")

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """A signal ends the run after the step that is under way; a SIGINT after it, at once."""

        def stop(name: str) -> None:
            self.stopping = True
            line = f"{name}: stopping after this step, with a checkpoint; Ctrl-C from now on stops at once"
            os.write(2, f"{self._name}: {line}\n".encode())

        try:
            with STOPS.noted(stop):
                yield
        finally:
            if self._bar:
                self._bar.stop()
