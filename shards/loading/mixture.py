"""Several sets drawn from as one: each micro-batch comes from one of them, in proportion to their weights."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, count

import numpy as np

from nextscene.shards.loading.dataset import SplitDataset
from nextscene.shards.loading.interleave import WeightedInterleave
from nextscene.shards.loading.sample_set import ArraySpec, Memory, SampleText
from nextscene.shards.loading.shuffle import BatchLookup, IntArray, SampleRef, ShuffleOrder


@dataclass(frozen=True)
class MixtureOrder:
    """The orders of several sets, whose samples are numbered through, taking turns. Each goes on in its own, unbroken.

    So it is one sequence for any number of ranks, and is entered anywhere at once.
    """

    orders: tuple[ShuffleOrder, ...]
    turns: WeightedInterleave

    @cached_property
    def bucket(self) -> IntArray:
        """[samples]: no two sets share one."""
        begins = accumulate((int(order.bucket.max()) + 1 for order in self.orders), initial=0)
        return np.concatenate([begin + order.bucket for begin, order in zip(begins, self.orders, strict=False)])

    def batches(self, position: int = 0, rank: int = 0, world: int = 1) -> Iterator[list[SampleRef]]:
        """From `position` in the sequence on, every `world`-th micro-batch, beginning with the `rank`-th. Endless."""
        lookups = [BatchLookup(order) for order in self.orders]
        begins = _begins(len(order.bucket) for order in self.orders)
        for place in count(position + rank, world):
            source, own = self.turns.at(place)
            yield [SampleRef(begins[source] + draw.number, draw.epoch) for draw in lookups[source].batch(own)]

    def epoch_at(self, position: int) -> int:
        """The epoch of the set whose turn it is."""
        source, own = self.turns.at(position)
        return self.orders[source].epoch_at(own)


class Mixture:
    """Sets of one kind as a `SampleSet`, numbered through one after another."""

    def __init__(self, sets: Sequence[SplitDataset], weights: Sequence[float]) -> None:
        """`weights`, one a set, are shares of the micro-batches. Raise ValueError for what does not mix."""
        if len(sets) != len(weights):
            raise ValueError(f"{len(sets)} sets and {len(weights)} weights")
        self._turns = WeightedInterleave(tuple(weights))
        kinds = {", ".join(one.reader.index.members) for one in sets}
        if len(kinds) > 1:
            raise ValueError(f"sets of {' and of '.join(sorted(kinds))} do not mix: give all clips, or all latents")
        self._sets = tuple(sets)
        self._begins = _begins(map(len, sets))
        self.shapes = np.concatenate([one.shapes for one in sets])
        """[samples, 3]: those of all sets, one after another."""

    def __len__(self) -> int:
        return self._begins[-1]

    @property
    def fingerprint(self) -> int:
        """A checksum of those of the sets, and of their shares."""
        return zlib.crc32(repr((self._turns.edges, [one.fingerprint for one in self._sets])).encode())

    def order(self, micro_batch: int, seed: int, window: int) -> MixtureOrder:
        return MixtureOrder(tuple(one.order(micro_batch, seed, window) for one in self._sets), self._turns)

    def array_spec(self, number: int) -> ArraySpec:
        source, own = self._place(number)
        return self._sets[source].array_spec(own)

    def decode_into(self, memory: Memory, number: int) -> SampleText:
        """Read a sample and fills `memory`, which has its form; the words say from which set. Raise DamagedShard."""
        source, own = self._place(number)
        return self._sets[source].decode_into(memory, own)._replace(source=source)

    def _place(self, number: int) -> tuple[int, int]:
        """The set of a sample, and its number there."""
        source = bisect_right(self._begins, number) - 1
        return source, number - self._begins[source]


def _begins(sizes: Iterable[int]) -> list[int]:
    """The number of each set's first sample, and that of all samples."""
    return [*accumulate(sizes, initial=0)]
