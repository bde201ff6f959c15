"""What stands between a writer and a folder whose lock it may have lost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from nextscene.common.filesystem import StorageFault

LOCK = "run.lock"
"""The lock of a folder, below it: see `common.run_lock`."""

DAMAGED = "is damaged: something that is not a run wrote to it; keep other programs from that folder"


class FencedFiles(Protocol):
    """What the lock is read from: a storage."""

    @property
    def display_uri(self) -> str: ...

    def read(self, path: str) -> bytes:
        """Raise FileNotFoundError."""


@dataclass(frozen=True)
class Fence:
    """A lock that must name its owner whenever something is written."""

    storage: FencedFiles
    path: str
    owner: str

    def check(self) -> None:
        """Raise StorageFault where the lock is gone, or names another."""
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
