"""A split as a map-style dataset: `len` and `[]`, for `torch.utils.data.DataLoader` or a plain loop."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any

from nextscene.shards.format.sample import CLIP_TYPES, Sample
from nextscene.shards.format.sample_type import SampleType, Shape
from nextscene.shards.loading.buckets import assign_buckets
from nextscene.shards.loading.clip_transform import ClipTransform
from nextscene.shards.loading.decode import Backend
from nextscene.shards.loading.reader import DatasetNotFound, SplitReader
from nextscene.shards.loading.sample_set import ArraySpec, Memory, SampleText
from nextscene.shards.loading.shuffle import IntArray, ShuffleOrder


class SplitDataset(ABC):
    """The samples of one split, of any type: a `SampleSet`."""

    shapes: IntArray
    """[samples, 3]: frames, width and height of each sample after the transform."""
    called: str
    """The samples in a word: clips, or latents."""

    def __init__(self, location: str, split: str, checksums: bool, kinds: Collection[SampleType], called: str) -> None:
        """Raise what `SplitReader` raises, and DatasetNotFound for samples with other members."""
        self._reader = SplitReader(location, split, checksums)
        if self._reader.index.members not in [kind.members for kind in kinds]:
            raise DatasetNotFound(f"{location} holds samples of {', '.join(self._reader.index.members)}, not {called}")
        self.called = called

    @property
    def reader(self) -> SplitReader:
        return self._reader

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return a sample. Raise IndexError, or DamagedShard for a bad sample."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        return self._item(number)

    def batch_order(self, micro_batch: int, seed: int, window: int) -> ShuffleOrder:
        return ShuffleOrder(self._reader.index.shard, assign_buckets(self.shapes), micro_batch, seed, window)

    @property
    def fingerprint(self) -> int:
        """Return a checksum of keys and shapes, in order."""
        return zlib.crc32(self.shapes.astype("<i8").tobytes(), zlib.crc32(self._reader.index.key_bytes()))

    @abstractmethod
    def array_spec(self, number: int) -> ArraySpec: ...

    @abstractmethod
    def decode_into(self, memory: Memory, number: int) -> SampleText: ...

    @abstractmethod
    def _item(self, number: int) -> dict[str, Any]: ...


class ClipDataset(SplitDataset):
    """The clips of one split, decoded, of any version of the schema. `ClipTransform.item` describes its items."""

    def __init__(
        self,
        location: str,
        split: str = "train",
        *,
        max_frames: int = 81,
        size: tuple[int, int] | None = None,
        backend: Backend = "pyav",
        checksums: bool = True,
    ) -> None:
        """Open a dataset at a path or URI. `ClipTransform` explains the options; `checksums` checks every byte that is
        read.

        Raise ValueError for a `max_frames` that is not 8k + 1, and what `SplitReader` raises.
        """
        self._transform = ClipTransform(max_frames, size, backend)
        super().__init__(location, split, checksums, CLIP_TYPES.values(), "clips")
        self.shapes = self._transform.shapes(self._reader.index.shapes)

    def array_spec(self, number: int) -> ArraySpec:
        """Return the spec of the pixels: [frames, height, width, RGB]."""
        frames, width, height = map(int, self.shapes[number])
        return ArraySpec((frames, height, width, 3), "uint8")

    def decode_into(self, memory: Memory, number: int) -> SampleText:
        """Read clip `number` and fill `memory` with its pixels. Raise DamagedShard."""
        sample, stored, shard = self._sample(number)
        record = self._transform.decode_into(memory, sample, stored, shard)
        return SampleText(sample.text.decode(), record.caption, record.fps, sample.key)

    def _item(self, number: int) -> dict[str, Any]:
        return self._transform.item(*self._sample(number))

    def _sample(self, number: int) -> tuple[Sample, Shape, str]:
        shard = str(self._reader.shard_of(number))
        stored = Shape(*map(int, self._reader.index.shapes[number]))
        return Sample.of(self._reader.group(number), shard), stored, shard
