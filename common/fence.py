"""A fence: a check before each write that the run lock of the folder still names this run.

Tested in tests/common/test_run_lock.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from nextscene.common.filesystem import StorageFault

LOCK = "run.lock"
"""The path of a folder's lock below the folder; see `common.run_lock`."""

DAMAGED = "is damaged: something that is not a run wrote to it; keep other programs from that folder"


class FencedFiles(Protocol):
    """The storage that the lock is read from."""

    @property
    def display_uri(self) -> str: ...

    def read(self, path: str) -> bytes:
        """Return the content. Raise FileNotFoundError."""


@dataclass(frozen=True)
class Fence:
    """A lock file that must name its owner whenever something is written."""

    storage: FencedFiles
    path: str
    owner: str

    def check(self) -> None:
        """Raise StorageFault if the lock is gone, or names another owner."""
        try:
            content = self.storage.read(self.path)
        except FileNotFoundError:
            content = b""
        if self.owner.encode() not in content:
            raise StorageFault(f"cannot write in {self.storage.display_uri}: its {self.path} {_how_lost(content)}")


def _how_lost(content: bytes) -> str:
    if not content:
        return "is gone: is the disk mounted? Did another run end it?"
    try:
        json.loads(content)["run_id"]
    except (ValueError, TypeError, KeyError):
        return DAMAGED
    return "was taken by another run"
