"""The streaming recipe: whole shards from front to back with the webdataset library, where ranged reads are dear.

Shards go to ranks and workers in turn, so an epoch is exact only over all of them together, ranks may get different
numbers of clips, and a run cannot be resumed in the middle of one. `shards.loading.loader` has none of these limits.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import webdataset

from nextscene.common.filesystem import storage_fault
from nextscene.common.storage import Storage
from nextscene.shards.format.manifest import ManifestShard
from nextscene.shards.format.sample import Sample, read_samples
from nextscene.shards.format.sample_type import Shape
from nextscene.shards.format.tar import DamagedShard
from nextscene.shards.loading.clip_transform import ClipTransform
from nextscene.shards.loading.reader import open_split

_AS_STORED = ClipTransform()


def stream(
    location: str,
    split: str = "train",
    *,
    delivery: ClipTransform = _AS_STORED,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world: int = 1,
    buffer: int = 64,
) -> webdataset.DataPipeline:
    """One epoch of this rank's shards: an iterable dataset for DataLoader, of the items that `ClipTransform.item`
    makes.

    Shards are shuffled by seed and epoch, clips in a buffer of so many, before they are decoded. Damage is raised as
    by the other readers, and a shard with fewer clips than the manifest says is damaged; add stages with `.compose`.
    Make a new one for each epoch.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of a world of {world}")
    out, manifest = open_split(location, split)
    shards = list(manifest.of_split(split))
    random.Random(f"{seed} {epoch}").shuffle(shards)  # noqa: S311 - an order, not a secret
    return webdataset.DataPipeline(
        partial(iter, shards[rank::world]),
        webdataset.split_by_worker,
        _SampleStream(out),
        webdataset.detshuffle(buffer, buffer // 2, seed=seed, epoch=epoch - 1),
        _Items(delivery),
    )


class _SampleStream:
    """A stage: the samples of each shard, with their shard's name."""

    def __init__(self, out: Storage) -> None:
        self._out = out

    def __call__(self, shards: Iterable[ManifestShard]) -> Iterator[tuple[Sample, str]]:
        for shard in shards:
            name, count = str(shard.name), 0
            try:
                with self._out.open(shard.path) as file:
                    for sample in read_samples(file, name):
                        count += 1
                        yield sample, name
            except FileNotFoundError as error:
                raise DamagedShard(f"{name}: {shard.path} is missing in {self._out.display_uri}") from error
            except OSError as fault:
                raise storage_fault("read", shard.path, self._out.display_uri, fault) from fault
            if count != shard.count:
                raise DamagedShard(f"{name} holds {count} samples, {shard.count} were sealed")


class _Items:
    """A stage: samples decoded."""

    def __init__(self, delivery: ClipTransform) -> None:
        self._delivery = delivery

    def __call__(self, samples: Iterable[tuple[Sample, str]]) -> Iterator[dict[str, Any]]:
        for sample, shard in samples:
            record = sample.record
            yield self._delivery.item(sample, Shape(record.frames, record.width, record.height), shard)
