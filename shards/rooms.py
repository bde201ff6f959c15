"""Memory for batches that is used again and again, by this process and the workers it forks.

To touch fresh memory takes a third of the time of decoding into it; what was touched before costs next to nothing.
"""

from __future__ import annotations

import math
import mmap
import weakref
from typing import NamedTuple

import numpy as np
import torch

from shards.decode import Pixels


class Lodged(NamedTuple):
    """Pixels in a room: [clips, frames, height, width, RGB]."""

    room: int
    shape: tuple[int, ...]


class Rooms:
    """So many rooms of so many bytes. A worker sees the same memory if it was forked after this was made."""

    def __init__(self, rooms: int, size: int) -> None:
        self._size = size
        self._memory = mmap.mmap(-1, rooms * size)
        self._free = list(range(rooms))

    def take(self) -> int | None:
        """A room nobody uses, the last one that was left, or None."""
        return self._free.pop() if self._free else None

    def pixels(self, lodged: Lodged) -> Pixels:
        """The memory itself."""
        return np.frombuffer(self._memory, np.uint8, math.prod(lodged.shape), lodged.room * self._size).reshape(
            lodged.shape
        )

    def lend(self, lodged: Lodged) -> torch.Tensor:
        """The pixels as a tensor. The room is free again when the last view of it is gone."""
        pixels = self.pixels(lodged)
        weakref.finalize(pixels, self._free.append, lodged.room).atexit = False
        return torch.from_numpy(pixels)
