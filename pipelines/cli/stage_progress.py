"""A build's progress, stage by stage, on a terminal or in a log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nextscene.curation.progress import Stages
from nextscene.pipelines.cli.console import asking_in_words, err

if TYPE_CHECKING:
    from nextscene.judge.call_progress import CallProgress

_LINE_EVERY_SECONDS = 5.0


class BuildProgress:
    """A `curation.progress.StageProgress`: a live bar on a terminal, otherwise a line every few seconds.

    The bar is as long as the clips' three stages together, so it moves whatever the run is at.
    """

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._planned = self._before = Stages()
        self._begun = self._told = time.monotonic()

    def begin(self, planned: Stages, done: Stages) -> None:
        self.end()
        self._planned, self._before, self._begun = planned, done, time.monotonic()
        if err.is_terminal and done != planned:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=err,
                transient=True,
            )
            self._task = self._bar.add_task(self._line(done, None), total=_steps(planned), completed=_steps(done))
            self._bar.start()

    def tick(self, done: Stages, asking: CallProgress | None) -> None:
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=_steps(done), description=self._line(done, asking))
        elif now - self._told >= _LINE_EVERY_SECONDS:
            self._told = now
            err.print(self._line(done, asking), markup=False)

    def end(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _line(self, done: Stages, asking: CallProgress | None) -> str:
        planned = self._planned
        rate = (done.cut - self._before.cut) / max(time.monotonic() - self._begun, 1e-9)
        asked = f"; {asking_in_words(asking)}" if asking else ""
        return (
            f"screened {done.screened:,}, asked {done.asked:,}, cut {done.cut:,} of {planned.cut:,} clips,"
            f" sealed {done.sealed:,} of {planned.sealed:,} shards; {rate:.1f} clips a second{asked}"
        )


def _steps(stages: Stages) -> int:
    return stages.screened + stages.asked + stages.cut
