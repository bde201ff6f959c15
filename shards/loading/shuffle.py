"""The shuffled order of training: an endless, deterministic sequence of micro-batches, by the data and a seed alone.

In each epoch the shards are shuffled, then the samples within a window of consecutive shards, so that reads stay close
together. Each sample joins the open micro-batch of its bucket; the sequence is the order in which micro-batches are
completed. The next epoch completes what an epoch leaves open: every micro-batch has its full batch size, no sample is
left out, and all are used equally often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class SampleRef(NamedTuple):
    """One use of a sample. The pair is unique in the sequence, so that it can seed randomness."""

    number: int
    epoch: int


@dataclass(frozen=True)
class ShuffleOrder:
    """The sequence for samples with the given `shard` and `bucket`, both [samples].

    Every micro-batch has `micro_batch` samples of one bucket. `window` is the number of shards that are shuffled
    together.
    """

    shard: IntArray
    bucket: IntArray
    micro_batch: int
    seed: int
    window: int = 8

    def __post_init__(self) -> None:
        if not len(self.shard) == len(self.bucket) > 0:
            raise ValueError(f"{len(self.shard)} samples lie in shards, {len(self.bucket)} in buckets")
        if self.micro_batch < 1 or self.window < 1:
            raise ValueError(f"a micro-batch of {self.micro_batch} or a window of {self.window}: at least 1")

    def epoch(self, epoch: int) -> IntArray:
        """Return the numbers of all samples in the order of this epoch, [samples]."""
        return self._shuffled(np.arange(len(self.shard)), epoch)

    def _shuffled(self, numbers: IntArray, epoch: int) -> IntArray:
        """Return these samples in their order in an epoch."""
        shards = self._shards
        turn = np.empty(int(shards[-1]) + 1, np.int64)
        shuffled = shards[np.argsort(splitmix64(shards, self.seed, epoch, 1), kind="stable")]
        turn[shuffled] = np.arange(len(shards)) // self.window
        random = splitmix64(numbers, self.seed, epoch, 2)
        return numbers[np.lexsort((random, turn[self.shard[numbers]]))]

    @cached_property
    def _shards(self) -> IntArray:
        return np.unique(self.shard)

    def batches(self, position: int = 0, rank: int = 0, world: int = 1) -> Iterator[list[SampleRef]]:
        """Yield every `world`-th micro-batch from `position` on, beginning with the `rank`-th. Endless."""
        return map(BatchLookup(self).batch, count(position + rank, world))

    def epoch_at(self, position: int) -> int:
        """Return the epoch in which the micro-batch at this position is completed."""
        low, high = 0, 1
        while self.begin(high) <= position:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.begin(middle) <= position else (low, middle)
        return low

    def begin(self, epoch: int) -> int:
        """Return how many micro-batches are completed before an epoch."""
        return sum(epoch * size // self.micro_batch for size in self._sizes)

    @cached_property
    def _sizes(self) -> list[int]:
        """Return the samples in each bucket, as integers that do not overflow."""
        return [int(size) for size in np.unique(self.bucket, return_counts=True)[1]]

    def completed_in(self, epoch: int) -> IntArray:
        """Return [micro-batches, micro_batch, 2]: number and epoch of each sample ref, in order of completion."""
        order = self.epoch(epoch)
        by_bucket = np.split(order[np.argsort(self.bucket[order], kind="stable")], np.cumsum(self._sizes)[:-1])
        batches = np.concatenate([self._completed_of(members, epoch) for members in by_bucket])
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return batches[np.argsort(place[batches[:, -1, 0]], kind="stable")]

    def _completed_of(self, members: IntArray, epoch: int) -> IntArray:
        """Return the same for one bucket, whose members are in the order of this epoch."""
        waiting = epoch * len(members) % self.micro_batch
        runs = [_refs(members, epoch)]
        for before in range(epoch - 1, epoch - 1 - -(-waiting // len(members)), -1):
            runs.insert(0, _refs(self._shuffled(np.sort(members), before), before))
        refs = np.concatenate(runs)[(len(runs) - 1) * len(members) - waiting :]
        whole = len(refs) // self.micro_batch
        return refs[: whole * self.micro_batch].reshape(whole, self.micro_batch, 2)


class BatchLookup:
    """Random access to the micro-batches of an order. It caches the epoch of the last one."""

    def __init__(self, order: ShuffleOrder) -> None:
        self._order = order
        self._begin = 0
        self._completed = np.empty((0, order.micro_batch, 2), np.int64)

    def batch(self, place: int) -> list[SampleRef]:
        if not 0 <= place - self._begin < len(self._completed):
            epoch = self._order.epoch_at(place)
            self._begin, self._completed = self._order.begin(epoch), self._order.completed_in(epoch)
        return [SampleRef(int(number), int(epoch)) for number, epoch in self._completed[place - self._begin]]


def _refs(numbers: IntArray, epoch: int) -> IntArray:
    return np.stack([numbers, np.full_like(numbers, epoch)], axis=1)


def splitmix64(numbers: IntArray, *seeds: int) -> npt.NDArray[np.uint64]:
    """Return an even 64-bit hash, the finalizer of SplitMix64: the same on every machine and with every numpy."""
    mixed = np.zeros(len(numbers), np.uint64)
    for word in (*seeds, numbers.astype(np.uint64)):
        mixed = mixed + np.asarray(word % 2**64 if isinstance(word, int) else word, np.uint64) + np.uint64(GOLDEN)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed


GOLDEN = 0x9E3779B97F4A7C15
"""The fraction of the golden ratio in units of 2⁻⁶⁴: its multiples are spread evenly."""
