"""How clips are delivered to a model: how long, how large, decoded by what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from nextscene.shards.format.sample import Record, Sample
from nextscene.shards.format.sample_type import Shape
from nextscene.shards.format.tar import DamagedShard
from nextscene.shards.loading.decode import Backend, DamagedVideo, Pixels, decode
from nextscene.shards.loading.shuffle import IntArray


@dataclass(frozen=True)
class ClipTransform:
    """A video is cut to the longest 8k + 1 frames that it has, at most `max_frames`: an autoencoder takes no others.

    `size` (width, height) is what videos are scaled and cropped to, by default their own; images keep theirs.
    """

    max_frames: int = 81
    size: tuple[int, int] | None = None
    backend: Backend = "pyav"

    def __post_init__(self) -> None:
        if self.max_frames < 1 or self.max_frames % 8 != 1:
            raise ValueError(f"max_frames {self.max_frames} is not of the form 8k + 1, as 65 and 81 are")
        if self.size is not None and not Shape(1, *self.size).is_possible:
            raise ValueError(f"size {self.size} is not a width and a height in pixels")
        if self.backend not in get_args(Backend):
            raise ValueError(f"backend {self.backend!r} is none of {', '.join(get_args(Backend))}")

    def shapes(self, stored: IntArray) -> IntArray:
        """[clips, 3], frames, width and height as they are stored: the same as they are delivered."""
        shapes = stored.copy()
        if self.size is not None:
            shapes[stored[:, 0] > 1, 1:] = self.size
        shapes[:, 0] = (np.minimum(stored[:, 0], self.max_frames) - 1) // 8 * 8 + 1
        return shapes

    def into(self, video: Pixels, sample: Sample, stored: Shape, shard: str) -> Record:
        """Decode a sample of a stored shape into `video`, of its delivered shape.

        Raise DamagedShard, naming shard and sample.
        """
        try:
            decode(sample.mp4, (stored.width, stored.height), video, self.backend)
        except DamagedVideo as error:
            raise DamagedShard(f"{shard}: sample {sample.key!r}: {error}") from error
        return sample.record

    def item(self, sample: Sample, stored: Shape, shard: str) -> dict[str, Any]:
        """`video`: uint8 [frames, height, width, RGB]; `text`: what a model is conditioned on; `caption`; `fps`; `key`.

        Raise DamagedShard.
        """
        frames, width, height = self.shapes(np.array([stored]))[0]
        video = np.empty((frames, height, width, 3), np.uint8)
        record = self.into(video, sample, stored, shard)
        text = sample.text.decode()
        return {"video": video, "text": text, "caption": record.caption, "fps": record.fps, "key": sample.key}
