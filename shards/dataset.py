"""A split as a map-style dataset: `len` and `[]`, for `torch.utils.data.DataLoader` or a plain loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shards.decode import Backend, DamagedVideo, Pixels, decode
from shards.read import SplitReader
from shards.sample import Record, Sample
from shards.tar import DamagedShard


class ClipDataset:
    """The clips of one split, decoded. Its items are dicts; see `__getitem__`."""

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
        """Opens a dataset at a path or URI.

        Each video is cut to the longest 8k + 1 frames that it has, at most `max_frames`, as the video autoencoder needs
        them. `size` (width, height) is what videos are scaled and cropped to, by default their own; images keep theirs.
        Raises ValueError for a `max_frames` that is not 8k + 1, and what `SplitReader` raises.
        """
        if max_frames < 1 or max_frames % 8 != 1:
            raise ValueError(
                f"max_frames {max_frames} is not of the form 8k + 1; the next below is {_whole(max_frames)}"
            )
        self._reader = SplitReader(location, split, checksums)
        self._backend: Backend = backend
        self.shapes = _shapes(self._reader.index.shapes, max_frames, size)

    @property
    def reader(self) -> SplitReader:
        return self._reader

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """`video`: uint8 [frames, height, width, RGB]; `text`: what a model is conditioned on; `caption`; `fps`; `key`.

        Raises IndexError, or DamagedShard for a clip that is not whole.
        """
        if not -len(self) <= number < len(self):
            raise IndexError(f"clip {number} of {len(self)}")
        frames, width, height = self.shapes[number]
        video = np.empty((frames, height, width, 3), np.uint8)
        sample, record = self.decode_into(video, number)
        return {
            "video": video,
            "text": sample.text.decode(),
            "caption": record.caption,
            "fps": record.fps,
            "key": sample.key,
        }

    def decode_into(self, video: Pixels, number: int) -> tuple[Sample, Record]:
        """Reads clip `number` and fills `video`, of its shape. Raises DamagedShard."""
        shard = self._reader.shard_of(number)
        sample = Sample.of(self._reader.group(number), shard)
        _, width, height = self._reader.index.shapes[number]
        try:
            decode(sample.mp4, (int(width), int(height)), video, self._backend)
        except DamagedVideo as error:
            raise DamagedShard(f"{shard}: sample {sample.key!r}: {error}") from error
        return sample, sample.record


def _shapes(stored: npt.NDArray[np.int64], max_frames: int, size: tuple[int, int] | None) -> npt.NDArray[np.int64]:
    """[clips, 3]: frames, width and height of each clip as it will be delivered."""
    shapes = stored.copy()
    if size is not None:
        shapes[stored[:, 0] > 1, 1:] = size
    shapes[:, 0] = _whole(np.minimum(stored[:, 0], max_frames))
    return shapes


def _whole(frames: Any) -> Any:
    """The longest 8k + 1 within so many frames."""
    return (frames - 1) // 8 * 8 + 1
