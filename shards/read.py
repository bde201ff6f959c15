"""Random access to the samples of a sealed shard, by key."""

from __future__ import annotations

import io

import numpy as np

from shards.layout import ShardName
from shards.receipt import Receipt
from shards.sample import Sample
from shards.storage import Storage
from shards.tar import END, DamagedShard, read_samples


class ShardReader:
    """A sealed shard, opened by its receipt and offsets; each sample is one ranged read."""

    def __init__(self, out: Storage, name: ShardName) -> None:
        self._out = out
        self.receipt = Receipt.read(out, name)
        self._offsets = np.frombuffer(out.read(name.offsets), dtype="<u8")
        self._places = {clip_id: place for place, clip_id in enumerate(self.receipt.clip_ids)}
        if len(self._offsets) != len(self._places) + 1:
            raise DamagedShard(f"{name}: {len(self._offsets)} offsets for {len(self._places)} samples")

    def __len__(self) -> int:
        return len(self._places)

    def sample(self, key: str) -> Sample:
        """Raises KeyError for a key that is not in the shard, DamagedShard for one that is not whole."""
        place = self._places[key]
        start, stop = (int(offset) for offset in self._offsets[place : place + 2])
        data = self._out.read(self.receipt.name.tar, start, stop - start)
        found = [placed.sample for placed in read_samples(io.BytesIO(data + END), str(self.receipt.name))]
        if [sample.key for sample in found] != [key]:
            raise DamagedShard(f"{self.receipt.name}: sample {key!r} is not where the offsets say")
        return found[0]
