"""Streaming: whole shards from front to back with the webdataset library, for stores where ranged reads are slow.

Shards go to ranks and workers in turn, so only all of them together see each clip once per epoch; ranks may get
different numbers of clips, and a run cannot be resumed within an epoch. `shards.loading.loader` has none of these
limits.
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
    transform: ClipTransform = _AS_STORED,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world: int = 1,
    buffer: int = 64,
) -> webdataset.DataPipeline:
    """Return one epoch of this rank's shards: an iterable dataset for DataLoader, of the items of `ClipTransform.item`.

    Shards are shuffled by seed and epoch, clips in a buffer of `buffer`, before they are decoded. Damage is raised as
    by the other readers; a shard with fewer clips than the manifest says is damaged. Add stages with `.compose`. Make a
    new one for each epoch.
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
        _Items(transform),
    )


class _SampleStream:
    """A stage: the samples of each shard, each with the name of its shard."""

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
    """A stage: decoded samples."""

    def __init__(self, transform: ClipTransform) -> None:
        self._transform = transform

    def __call__(self, samples: Iterable[tuple[Sample, str]]) -> Iterator[dict[str, Any]]:
        for sample, shard in samples:
            record = sample.record
            yield self._transform.item(sample, Shape(record.frames, record.width, record.height), shard)
