"""Output of a command: the two consoles, error lines, escaping of text from data, and exit codes.

Error lines and log records name flags where the rooms below name arguments and settings (see `flag_names`).
"""

from __future__ import annotations

import logging
import sys
import unicodedata
from contextlib import suppress
from typing import IO, Any, NoReturn, cast

import click
from rich.console import Console

from nextscene.pipelines.cli.flag_names import running_commands, with_flags

DONE, ATTENTION, USAGE, STOPPED = 0, 1, 2, 3


class _StandardError:
    """`sys.stderr` as it is at each call, without an error if nobody reads it any more.

    A closed terminal or a gone reader of the pipe must not end a run of days, and rich ends the process at one.
    """

    def write(self, text: str) -> int:
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


err = Console(file=cast(IO[str], _StandardError()), soft_wrap=True, highlight=False, emoji=False)
out = Console(soft_wrap=True, highlight=False, emoji=False)


def fail(message: object, code: int) -> NoReturn:
    """Print the message on stderr, with its line breaks, and end the process with the exit code `code`."""
    line = f"error: {_visible_lines(with_flags(str(message).strip()))}"
    err.print(line, style="bold red" if err.is_terminal else None, markup=False)
    sys.exit(code)


def visible(text: str) -> str:
    """Escape control characters in text from data, so that it cannot steer the terminal."""
    return "".join(_escaped(letter) if unicodedata.category(letter) in _UNSEEN else letter for letter in text)


def _visible_lines(text: str) -> str:
    return "\n".join(map(visible, text.splitlines()))


_UNSEEN = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])
_JOINERS = "\u200c\u200d"


def _escaped(letter: str) -> str:
    return letter if letter in _JOINERS else letter.encode("unicode_escape").decode()


def log_to_stderr() -> None:
    """Print log records of level warning and above on stderr, with flags, and with control characters escaped.

    The flags are those of the command that runs now, also for records of other threads.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_VisibleFormatter(running_commands()))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class _VisibleFormatter(logging.Formatter):
    def __init__(self, commands: tuple[click.Command, ...]) -> None:
        super().__init__("%(message)s")
        self._commands = commands

    def format(self, record: logging.LogRecord) -> str:
        return _visible_lines(with_flags(super().format(record), *self._commands))
