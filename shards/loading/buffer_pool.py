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

from nextscene.shards.loading.sample_set import Memory


class BufferSlot(NamedTuple):
    """A micro-batch in a room: the shape of its array, samples first, and numpy's name for the type of its numbers."""

    room: int
    shape: tuple[int, ...]
    dtype: str = "uint8"


class BufferPool:
    """So many rooms of so many bytes. A worker sees the same memory if it was forked after this was made."""

    def __init__(self, rooms: int, size: int) -> None:
        self._size = size
        self._memory = mmap.mmap(-1, rooms * size)
        self._free = list(range(rooms))

    def acquire(self) -> int | None:
        """A room nobody uses, the last one that was left, or None."""
        return self._free.pop() if self._free else None

    def memory(self, lodged: BufferSlot) -> Memory:
        """The memory itself."""
        numbers = np.frombuffer(self._memory, lodged.dtype, math.prod(lodged.shape), lodged.room * self._size)
        return numbers.reshape(lodged.shape)

    def tensor(self, lodged: BufferSlot) -> torch.Tensor:
        """The same as a tensor. The room is free again when the last view of it is gone."""
        memory = self.memory(lodged)
        weakref.finalize(memory, self._free.append, lodged.room).atexit = False
        return torch.from_numpy(memory)
