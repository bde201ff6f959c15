"""What a `Loader` draws from: numbered samples, an order to draw them in, and memory to put one into."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nextscene.shards.loading.shuffle import IntArray, SampleRef

Memory = npt.NDArray[Any]


class ArraySpec(NamedTuple):
    """How a sample lies in memory: the shape of its array, and numpy's name for the type of its numbers."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class SampleText(NamedTuple):
    """What goes with a sample's array. `source` is the set of a mixture that it comes from, by its number there."""

    text: str
    caption: str
    fps: float
    key: str
    source: int = 0


class BatchOrder(Protocol):
    """An endless sequence of micro-batches, each of one bucket. See `shards.loading.shuffle.Order`."""

    @property
    def bucket(self) -> IntArray:
        """[samples]: what each goes with."""

    def batches(self, position: int = 0, rank: int = 0, world: int = 1) -> Iterator[list[SampleRef]]:
        """From `position` in the sequence on, every `world`-th micro-batch, beginning with the `rank`-th."""

    def epoch_at(self, position: int) -> int:
        """The epoch in which the micro-batch at this place in the sequence is completed."""


class SampleSet(Protocol):
    """Samples of one kind, numbered from 0 on."""

    @property
    def shapes(self) -> IntArray:
        """[samples, 3]: frames, width and height of each."""

    @property
    def fingerprint(self) -> int:
        """A checksum of keys and shapes, in order."""

    def order(self, micro_batch: int, seed: int, window: int) -> BatchOrder: ...

    def array_spec(self, number: int) -> ArraySpec:
        """The same for all samples of a bucket."""

    def decode_into(self, memory: Memory, number: int) -> SampleText:
        """Read a sample and fills `memory`, which has its form. Raise DamagedShard."""
