"""A weighted mixture of datasets: each micro-batch comes from one of them, in proportion to their weights."""

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
    """The interleaved orders of several datasets, whose samples are numbered consecutively.

    Each dataset continues in its own order. The result is one sequence for any number of ranks, with random access.
    """

    orders: tuple[ShuffleOrder, ...]
    interleave: WeightedInterleave

    @cached_property
    def bucket(self) -> IntArray:
        """Return the buckets, [samples]: no two datasets share one."""
        begins = accumulate((int(order.bucket.max()) + 1 for order in self.orders), initial=0)
        return np.concatenate([begin + order.bucket for begin, order in zip(begins, self.orders, strict=False)])

    def batches(self, position: int = 0, rank: int = 0, world: int = 1) -> Iterator[list[SampleRef]]:
        """Yield every `world`-th micro-batch from `position` on, beginning with the `rank`-th. Endless."""
        lookups = [BatchLookup(order) for order in self.orders]
        begins = _begins(len(order.bucket) for order in self.orders)
        for index in count(position + rank, world):
            source, own = self.interleave.at(index)
            yield [SampleRef(begins[source] + ref.number, ref.epoch) for ref in lookups[source].batch(own)]

    def epoch_at(self, position: int) -> int:
        """Return the epoch, in its own dataset, of the micro-batch at this position."""
        source, own = self.interleave.at(position)
        return self.orders[source].epoch_at(own)


class Mixture:
    """Datasets of one type as a `SampleSet`, their samples numbered consecutively."""

    def __init__(
        self, sets: Sequence[SplitDataset], weights: Sequence[float], sources: Sequence[int] | None = None
    ) -> None:
        """Mix datasets; `weights` are their shares of the micro-batches. Raise ValueError if they do not mix.

        `sources` are the numbers of the datasets in the texts of their samples; by default 0, 1, …
        """
        if len(sets) != len(weights):
            raise ValueError(f"{len(sets)} sets and {len(weights)} weights")
        self._interleave = WeightedInterleave(tuple(weights))
        kinds = {one.called for one in sets}
        if len(kinds) > 1:
            raise ValueError(f"sets of {' and of '.join(sorted(kinds))} do not mix: give all clips, or all latents")
        self._sets = tuple(sets)
        self._sources = range(len(sets)) if sources is None else sources
        self._begins = _begins(map(len, sets))
        self.shapes = np.concatenate([one.shapes for one in sets])
        """[samples, 3]: those of all datasets, one after another."""

    def __len__(self) -> int:
        return self._begins[-1]

    @property
    def fingerprint(self) -> int:
        """Return a checksum of the datasets' fingerprints and of their shares."""
        return zlib.crc32(repr((self._interleave.edges, [one.fingerprint for one in self._sets])).encode())

    def batch_order(self, micro_batch: int, seed: int, window: int) -> MixtureOrder:
        return MixtureOrder(tuple(one.batch_order(micro_batch, seed, window) for one in self._sets), self._interleave)

    def array_spec(self, number: int) -> ArraySpec:
        source, own = self._locate(number)
        return self._sets[source].array_spec(own)

    def decode_into(self, memory: Memory, number: int) -> SampleText:
        """Read a sample and fill `memory`, which fits its spec; the text says from which dataset.

        Raise DamagedShard.
        """
        source, own = self._locate(number)
        return self._sets[source].decode_into(memory, own)._replace(source=self._sources[source])

    def _locate(self, number: int) -> tuple[int, int]:
        """Return the dataset of a sample, and its number there."""
        source = bisect_right(self._begins, number) - 1
        return source, number - self._begins[source]


def _begins(sizes: Iterable[int]) -> list[int]:
    """Return the number of each dataset's first sample, and the number of all samples."""
    return [*accumulate(sizes, initial=0)]
