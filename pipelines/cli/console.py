"""Output of a command: the two consoles, error lines, escaping of text from data, and exit codes."""

from __future__ import annotations

import logging
import sys
import unicodedata
from contextlib import suppress
from typing import NoReturn

from rich.console import Console

DONE, ATTENTION, USAGE, STOPPED = 0, 1, 2, 3

err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
out = Console(soft_wrap=True, highlight=False, emoji=False)


def fail(message: object, code: int) -> NoReturn:
    """Print the message on stderr, with its line breaks, and end the process with the exit code `code`."""
    line = f"error: {_visible_lines(str(message).strip())}"
    with suppress(OSError):  # if nothing can be printed, the exit code still reports the failure
        err.print(line, style="bold red" if err.is_terminal else None, markup=False)
    sys.exit(code)


def many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


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
    """Print log records of level warning and above on stderr, with control characters escaped."""
    handler = logging.StreamHandler()
    handler.setFormatter(_VisibleFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _visible_lines(super().format(record))
