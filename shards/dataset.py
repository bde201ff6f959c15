"""A split as a map-style dataset: `len` and `[]`, for `torch.utils.data.DataLoader` or a plain loop."""

from __future__ import annotations

from typing import Any

from shards.decode import Backend, Pixels
from shards.delivery import Delivery
from shards.kind import Shape
from shards.read import NoDataset, SplitReader
from shards.sample import MEMBERS, Record, Sample


class ClipDataset:
    """The clips of one split, decoded. What its items are, `Delivery.item` says."""

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
        """Opens a dataset at a path or URI. `Delivery` explains the options; `checksums` are of every byte read.

        Raises ValueError for a `max_frames` that is not 8k + 1, and what `SplitReader` raises.
        """
        self._delivery = Delivery(max_frames, size, backend)
        self._reader = SplitReader(location, split, checksums)
        if self._reader.index.members != MEMBERS:
            raise NoDataset(f"{location} holds samples of {', '.join(self._reader.index.members)}, not clips")
        self.shapes = self._delivery.shapes(self._reader.index.shapes)
        """[clips, 3]: frames, width and height of each clip as it is delivered."""

    @property
    def reader(self) -> SplitReader:
        return self._reader

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Raises IndexError, or DamagedShard for a clip that is not whole."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"clip {number} of {len(self)}")
        return self._delivery.item(*self._sample(number))

    def decode_into(self, video: Pixels, number: int) -> tuple[Sample, Record]:
        """Reads clip `number` and fills `video`, of its shape. Raises DamagedShard."""
        sample, stored, shard = self._sample(number)
        return sample, self._delivery.into(video, sample, stored, shard)

    def _sample(self, number: int) -> tuple[Sample, Shape, str]:
        shard = str(self._reader.shard_of(number))
        stored = Shape(*map(int, self._reader.index.shapes[number]))
        return Sample.of(self._reader.group(number), shard), stored, shard
