"""The order of training: an endless sequence of micro-batches that depends on the data and a seed alone.

Epoch after epoch, the shards are shuffled, then the samples within a window of consecutive shards, so that reads stay
near each other. Each sample joins the micro-batch that its bucket has open; the sequence is that of their completion.
What an epoch leaves open, the next one completes: no micro-batch is short, no sample is left out, and all are drawn
equally often.
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
    """One use of a sample. The pair is unique in the sequence, so that randomness can be seeded by it."""

    number: int
    epoch: int


@dataclass(frozen=True)
class ShuffleOrder:
    """The sequence for samples of which `shard` and `bucket` ([samples]) say where they lie and what they go with.

    Every micro-batch has `micro_batch` samples of one bucket. `window` is how many shards are shuffled as one.
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
        """[samples]: the numbers of all samples, in the order of this epoch."""
        return self._in_order(np.arange(len(self.shard)), epoch)

    def _in_order(self, numbers: IntArray, epoch: int) -> IntArray:
        """These samples, as they follow each other in an epoch."""
        shards = self._shards
        turn = np.empty(int(shards[-1]) + 1, np.int64)
        shuffled = shards[np.argsort(splitmix64(shards, self.seed, epoch, 1), kind="stable")]
        turn[shuffled] = np.arange(len(shards)) // self.window
        chance = splitmix64(numbers, self.seed, epoch, 2)
        return numbers[np.lexsort((chance, turn[self.shard[numbers]]))]

    @cached_property
    def _shards(self) -> IntArray:
        return np.unique(self.shard)

    def batches(self, position: int = 0, rank: int = 0, world: int = 1) -> Iterator[list[SampleRef]]:
        """From `position` in the sequence on, every `world`-th micro-batch, beginning with the `rank`-th. Endless."""
        return map(BatchLookup(self).batch, count(position + rank, world))

    def epoch_at(self, position: int) -> int:
        """The epoch in which the micro-batch at this place in the sequence is completed."""
        low, high = 0, 1
        while self.begin(high) <= position:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.begin(middle) <= position else (low, middle)
        return low

    def begin(self, epoch: int) -> int:
        """How many micro-batches are completed before an epoch."""
        return sum(epoch * size // self.micro_batch for size in self._sizes)

    @cached_property
    def _sizes(self) -> list[int]:
        """Samples in each bucket, as integers that do not overflow."""
        return [int(size) for size in np.unique(self.bucket, return_counts=True)[1]]

    def completed_in(self, epoch: int) -> IntArray:
        """[micro-batches, micro_batch, 2]: number and epoch of each draw, in order of completion."""
        order = self.epoch(epoch)
        by_bucket = np.split(order[np.argsort(self.bucket[order], kind="stable")], np.cumsum(self._sizes)[:-1])
        batches = np.concatenate([self._completed_of(members, epoch) for members in by_bucket])
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return batches[np.argsort(place[batches[:, -1, 0]], kind="stable")]

    def _completed_of(self, members: IntArray, epoch: int) -> IntArray:
        """The same of one bucket, whose members are in the order of this epoch."""
        waiting = epoch * len(members) % self.micro_batch
        runs = [_draws(members, epoch)]
        for before in range(epoch - 1, epoch - 1 - -(-waiting // len(members)), -1):
            runs.insert(0, _draws(self._in_order(np.sort(members), before), before))
        draws = np.concatenate(runs)[(len(runs) - 1) * len(members) - waiting :]
        whole = len(draws) // self.micro_batch
        return draws[: whole * self.micro_batch].reshape(whole, self.micro_batch, 2)


class BatchLookup:
    """The micro-batches of an order by their places. It holds the epoch of the last one, for those that follow."""

    def __init__(self, order: ShuffleOrder) -> None:
        self._order = order
        self._begin = 0
        self._completed = np.empty((0, order.micro_batch, 2), np.int64)

    def batch(self, place: int) -> list[SampleRef]:
        if not 0 <= place - self._begin < len(self._completed):
            epoch = self._order.epoch_at(place)
            self._begin, self._completed = self._order.begin(epoch), self._order.completed_in(epoch)
        return [SampleRef(int(number), int(epoch)) for number, epoch in self._completed[place - self._begin]]


def _draws(numbers: IntArray, epoch: int) -> IntArray:
    return np.stack([numbers, np.full_like(numbers, epoch)], axis=1)


def splitmix64(numbers: IntArray, *seeds: int) -> npt.NDArray[np.uint64]:
    """An even 64-bit hash (the finaliser of SplitMix64): the same on every machine and with every version of numpy."""
    mixed = np.zeros(len(numbers), np.uint64)
    for word in (*seeds, numbers.astype(np.uint64)):
        mixed = mixed + np.asarray(word % 2**64 if isinstance(word, int) else word, np.uint64) + np.uint64(GOLDEN)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed


GOLDEN = 0x9E3779B97F4A7C15
"""The golden ratio's fraction in 2⁻⁶⁴: its multiples lie evenly."""
