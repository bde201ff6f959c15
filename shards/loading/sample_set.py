"""The interface of a `Loader` to its data: numbered samples, a shuffled order, and arrays to decode into.

Tested in tests/shards/loading/test_loader.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nextscene.shards.loading.shuffle import IntArray, SampleRef

Memory = npt.NDArray[Any]


class ArraySpec(NamedTuple):
    """The array of a sample: its shape, and numpy's name of its type."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class SampleText(NamedTuple):
    """The fields that accompany a sample's array. `source` is the number of its dataset in a mixture."""

    text: str
    caption: str
    fps: float
    key: str
    source: int = 0


class BatchOrder(Protocol):
    """An endless sequence of micro-batches, each of one bucket. See `shards.loading.shuffle.ShuffleOrder`."""

    @property
    def bucket(self) -> IntArray:
        """Return the bucket of each sample, [samples]."""

    def batches(self, position: int = 0, rank: int = 0, world: int = 1) -> Iterator[list[SampleRef]]:
        """Yield every `world`-th micro-batch from `position` on, beginning with the `rank`-th."""

    def epoch_at(self, position: int) -> int:
        """Return the epoch in which the micro-batch at this position is completed."""


class SampleSet(Protocol):
    """Samples of one type, numbered from 0."""

    @property
    def shapes(self) -> IntArray:
        """Return the shapes, [samples, 3]: frames, width and height."""

    @property
    def fingerprint(self) -> int:
        """Return a checksum of keys and shapes, in order."""

    def batch_order(self, micro_batch: int, seed: int, window: int) -> BatchOrder: ...

    def array_spec(self, number: int) -> ArraySpec:
        """Return the spec of a sample, which is the same for all samples of a bucket."""

    def decode_into(self, memory: Memory, number: int) -> SampleText:
        """Read a sample and fill `memory`, which fits its spec. Raise DamagedShard."""


def decode_sample(samples: SampleSet, number: int) -> tuple[Memory, SampleText]:
    """Return a sample in an array of its own, and its text. Raise DamagedShard as `SampleSet.decode_into`."""
    array = np.empty(*samples.array_spec(number))
    return array, samples.decode_into(array, number)
