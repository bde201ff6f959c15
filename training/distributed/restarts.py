"""Torchrun starts its processes again when one of them fails. One that ended on purpose leaves word not to go on."""

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
    """Why the processes of a torchrun ended on purpose: `code` is what they exited with."""

    job: str
    code: int
    why: str

    @staticmethod
    def read(folder: Path) -> RestartNotice | None:
        """That of an earlier start of this process by the same torchrun; None where there is none, or another's."""
        if not _restarted():
            return None
        try:
            word = RestartNotice(**json.loads((folder / _WORD).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return word if word.job == _job() else None

    @staticmethod
    def write(folder: Path, code: int, why: str) -> None:
        """Every process does, before it exits: torchrun acts as soon as one has. Without torchrun nothing is left."""
        if _job() and folder.is_dir():
            word = asdict(RestartNotice(_job(), code, why))
            Storage.at(folder).write(_WORD, json.dumps(word).encode())


def delete_notice(folder: Path) -> None:
    """The leading process does as torchrun starts it first: what another torchrun was told is over."""
    if not _restarted():
        with suppress(FileNotFoundError):
            (folder / _WORD).unlink()


def _job() -> str:
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


def _restarted() -> bool:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
