"""What a command shows: one line for an error, a bar on a terminal or a line now and then in a log, and exit codes."""

from __future__ import annotations

import logging
import sys
import time
import unicodedata
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from nextscene.judge.call_progress import CallProgress

DONE, ATTENTION, USAGE, STOPPED = 0, 1, 2, 3
_LOG_EVERY_SECONDS = 5.0

err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
out = Console(soft_wrap=True, highlight=False, emoji=False)


def fail(message: object, code: int) -> NoReturn:
    """Ends the process with a line on stderr, or with those of the message."""
    line = f"error: {_visible_lines(str(message).strip())}"
    with suppress(OSError):  # where nothing can be printed, the code still says how it ended
        err.print(line, style="bold red" if err.is_terminal else None, markup=False)
    sys.exit(code)


def many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def visible(text: str) -> str:
    """A text from data with everything escaped that is no character to look at: it cannot steer the terminal."""
    return "".join(_escaped(letter) if unicodedata.category(letter) in _UNSEEN else letter for letter in text)


def _visible_lines(text: str) -> str:
    return "\n".join(map(visible, text.splitlines()))


_UNSEEN = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])
_JOINERS = "\u200c\u200d"


def _escaped(letter: str) -> str:
    return letter if letter in _JOINERS else letter.encode("unicode_escape").decode()


def log_to_stderr() -> None:
    """Warnings of our own packages, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(_VisibleFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _visible_lines(super().format(record))


class ProgressLine:
    """A run's progress in clips: a live bar on a terminal, otherwise a line every few seconds."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._bar: Progress | None = None
        self._planned = self._decided = self._from = 0
        self._begun = self._told = time.monotonic()

    def begin(self, planned: int, decided: int) -> None:
        """`decided` of `planned` clips are done already."""
        self._planned, self._decided, self._from = planned, decided, decided
        if err.is_terminal and decided < planned:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("clips"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=err,
                transient=True,
            )
            self._task = self._bar.add_task(self._verb, total=planned, completed=decided)
            self._bar.start()

    def advance(self, clips: int) -> None:
        self._decided += clips
        if self._bar:
            self._bar.update(self._task, completed=self._decided)

    def tick(self, asking: CallProgress | None = None) -> None:
        now = time.monotonic()
        asked = f"; {asking_in_words(asking)}" if asking else ""
        if self._bar:
            self._bar.update(self._task, description=self._verb + asked)
        elif now - self._told >= _LOG_EVERY_SECONDS:
            self._told = now
            rate = (self._decided - self._from) / (now - self._begun)
            line = f"{self._verb}: {self._decided} of {self._planned} clips, {rate:.1f} a second{asked}"
            err.print(line, markup=False)

    def end(self) -> None:
        if self._bar:
            self._bar.stop()


def asking_in_words(report: CallProgress) -> str:
    waiting = f", {report.in_batches:,} in batches" if report.in_batches else ""
    trouble = f" (waiting: {visible(report.trouble)})" if report.trouble else ""
    return f"${report.spent:.2f} for {report.answers:,} answers, {report.under_way:,} under way{waiting}{trouble}"
