"""Notices that prevent useless restarts: torchrun restarts all processes if one exits with an error.

A process that ends on purpose leaves a notice, so that the restarted processes do not continue.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from nextscene.common.storage import Storage

_WORD = "ended.json"


@dataclass(frozen=True)
class RestartNotice:
    """A record that the processes of a torchrun job ended on purpose.

    `job` is the ID of the job, `code` the exit code of the processes, `why` the reason.
    """

    job: str
    code: int
    why: str

    @staticmethod
    def read(folder: Path) -> RestartNotice | None:
        """Return the notice that this torchrun job left in the folder before it restarted this process, or None."""
        if not is_restart():
            return None
        try:
            word = RestartNotice(**json.loads((folder / _WORD).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return word if word.job == _job() else None

    @staticmethod
    def write(folder: Path, code: int, why: str) -> None:
        """Write the notice, if torchrun started this process and the folder exists.

        Every process does this before it exits, because torchrun restarts them as soon as one has exited.
        """
        if _job() and folder.is_dir():
            word = asdict(RestartNotice(_job(), code, why))
            Storage.at(folder).write(_WORD, json.dumps(word).encode())


def is_restart() -> bool:
    """Return whether torchrun has started this process before, and does so again after a process was lost."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def delete_notice(folder: Path) -> None:
    """Delete the notice of an earlier torchrun job. The leading process does this when torchrun first starts it."""
    if not is_restart():
        with suppress(FileNotFoundError):
            (folder / _WORD).unlink()


def _job() -> str:
    return os.environ.get("TORCHELASTIC_RUN_ID", "")
