"""The cause in the logs of a Ray that did not start: what it wrote last that says something."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nextscene.common.text import readable_text

_SESSION_LOGS = ("raylet.err", "gcs_server.err", "dashboard_agent.err", "runtime_env_agent.err")
_MOST_BYTES = 64 << 10
_MOST_CHARACTERS = 300
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b")
_FRAME = re.compile(r"\s|\S*\(\+0x|Traceback |\*\*\*")
"""A line of a stack trace, as Python and Ray's servers print them."""


def last_words(folder: Path) -> str:
    """Return the last line that tells what was raised, else the last of `ray.log` that says something; "" for none."""
    own = _said(folder / "ray.log")
    others = (line for name in _SESSION_LOGS for line in _said(folder / "session_latest" / "logs" / name))
    raised = (line for line in (*own, *others) if _RAISED.match(line))
    return readable_text(next(raised, next(iter(own), "")), _MOST_CHARACTERS)


def _said(log: Path) -> list[str]:
    """Return the lines that belong to no stack trace, the last one first."""
    return [line.rstrip() for line in reversed([*_end_of(log)]) if line.strip() and not _FRAME.match(line)]


def _end_of(log: Path) -> Iterator[str]:
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _MOST_BYTES))
        yield from file.read(_MOST_BYTES).decode("utf-8", "replace").splitlines()
