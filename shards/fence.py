"""What stands between a writer and a folder whose lock it may have lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shards.filesystem import StorageFault


class Files(Protocol):
    """What the lock is read from: a storage."""

    @property
    def shown(self) -> str: ...

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""


@dataclass(frozen=True)
class Fence:
    """A lock that must name its owner whenever something is written."""

    storage: Files
    path: str
    owner: str

    def check(self) -> None:
        """Raises StorageFault where the lock is gone, or names another."""
        try:
            content = self.storage.read(self.path)
        except FileNotFoundError:
            content = b""
        if self.owner.encode() not in content:
            how = "was taken by another run" if content else "is gone: is the disk mounted? Did another run end it?"
            raise StorageFault(f"cannot write in {self.storage.shown}: its {self.path} {how}")
