"""A buffer pool in shared memory: batches reuse it, in this process and in the workers that it forks.

The page faults of fresh memory cost a third of the time of decoding into it; memory that is reused costs almost none.
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
    """A micro-batch in a buffer: the number of the buffer, the array's shape, samples first, and its numpy type."""

    buffer: int
    shape: tuple[int, ...]
    dtype: str = "uint8"


class BufferPool:
    """`buffers` buffers of `size` bytes. A worker shares the memory if it is forked after the pool is made."""

    def __init__(self, buffers: int, size: int) -> None:
        self._size = size
        self._memory = mmap.mmap(-1, buffers * size)
        self._free = list(range(buffers))

    def acquire(self) -> int | None:
        """Return the number of a free buffer, the one that was released last, or None if there is none."""
        return self._free.pop() if self._free else None

    def memory(self, slot: BufferSlot) -> Memory:
        """Return the shared memory as an array."""
        numbers = np.frombuffer(self._memory, slot.dtype, math.prod(slot.shape), slot.buffer * self._size)
        return numbers.reshape(slot.shape)

    def tensor(self, slot: BufferSlot) -> torch.Tensor:
        """Return the shared memory as a tensor. The buffer is released when the last view of it is gone."""
        memory = self.memory(slot)
        weakref.finalize(memory, self._free.append, slot.buffer).atexit = False
        return torch.from_numpy(memory)
