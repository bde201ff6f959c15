"""The cause in the logs of a Ray that did not start: the last line that names an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nextscene.common.text import readable_text

_SESSION_LOGS = ("raylet.err", "gcs_server.err", "dashboard_agent.err", "runtime_env_agent.err")
_MAX_BYTES = 64 << 10
_MAX_CHARACTERS = 300
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b")
_FRAME = re.compile(r"\s|\S*\(\+0x|Traceback |\*\*\*")
"""A line of a stack trace, as Python and Ray's servers print them."""


def last_error_line(folder: Path) -> str:
    """Return the last line that names an exception, else the last line of `ray.log` outside stack traces, else ""."""
    own = _message_lines(folder / "ray.log")
    others = (line for name in _SESSION_LOGS for line in _message_lines(folder / "session_latest" / "logs" / name))
    raised = (line for line in (*own, *others) if _RAISED.match(line))
    return readable_text(next(raised, next(iter(own), "")), _MAX_CHARACTERS)


def _message_lines(log: Path) -> list[str]:
    """Return the lines outside stack traces, the last one first."""
    return [line.rstrip() for line in reversed([*_end_of(log)]) if line.strip() and not _FRAME.match(line)]


def _end_of(log: Path) -> Iterator[str]:
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _MAX_BYTES))
        yield from file.read(_MAX_BYTES).decode("utf-8", "replace").splitlines()
