"""Progress of a command: a live bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nextscene.pipelines.cli.console import err, visible

if TYPE_CHECKING:
    from nextscene.judge.call_progress import CallProgress

_LINE_EVERY_SECONDS = 5.0


class ProgressBar:
    """The display of progress of all commands: a bar on a terminal, else log lines, at most one every five seconds."""

    def __init__(self, unit: str = "") -> None:
        """Create the display. `unit` names what is counted beside the bar; without one, the bar shows no counts."""
        self._unit = unit
        self._bar: Progress | None = None
        self._last_line = time.monotonic()

    def begin(self, total: int, done: int, text: str = "") -> None:
        """Begin or restart the bar, with `text` beside it. Without a terminal, or if all is done, show none."""
        self.end()
        if err.is_terminal and done < total:
            counted: list[ProgressColumn] = [MofNCompleteColumn(), TextColumn(self._unit)] if self._unit else []
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), *counted, TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=err, transient=True)
            self._task = self._bar.add_task(text, total=total, completed=done)
            self._bar.start()

    def show(self, done: int, text: str, line: str) -> None:
        """Show `text` beside the bar. Without a bar, print `line` if the last line is at least five seconds old."""
        if self._bar:
            self._bar.update(self._task, completed=done, description=text)
        elif time.monotonic() - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            err.print(line, markup=False)

    def end(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None


class ProgressLine:
    """Progress of one kind of work, in clips or videos."""

    def __init__(self, verb: str, unit: str = "clips") -> None:
        self._verb, self._unit = verb, unit
        self._bar = ProgressBar(unit)
        self._planned = self._done = self._before = 0
        self._began = time.monotonic()

    def begin(self, planned: int, decided: int) -> None:
        """Begin. `decided` of `planned` are done already."""
        self._planned, self._done, self._before = planned, decided, decided
        self._bar.begin(planned, decided, self._verb)

    def advance(self, clips: int) -> None:
        self._done += clips

    def tick(self, asking: CallProgress | None = None) -> None:
        """Show what is done so far, and the state of the calls to the judge if it is given."""
        asked = f"; {calls_in_words(asking)}" if asking else ""
        rate = (self._done - self._before) / max(time.monotonic() - self._began, 1e-9)
        counts = f"{self._done} of {self._planned} {self._unit}, {rate:.1f} a second"
        self._bar.show(self._done, self._verb + asked, f"{self._verb}: {counts}{asked}")

    def end(self) -> None:
        self._bar.end()


def calls_in_words(report: CallProgress) -> str:
    waiting = f", {report.in_batches:,} in batches" if report.in_batches else ""
    trouble = f" (waiting: {visible(report.trouble)})" if report.trouble else ""
    return f"${report.spent:.2f} for {report.answers:,} answers, {report.under_way:,} in flight{waiting}{trouble}"
