"""The transform of clips for a model: how long, how large, and the decoder.

Tested in tests/shards/loading/test_dataset.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from nextscene.shards.format.sample import Record, Sample
from nextscene.shards.format.sample_type import Shape
from nextscene.shards.format.tar import DamagedShard
from nextscene.shards.loading.decode import Backend, DamagedVideo, Pixels, decode, decode_image
from nextscene.shards.loading.shuffle import IntArray


@dataclass(frozen=True)
class ClipTransform:
    """A transform: a video is cut to its longest 8k + 1 frames, `max_frames` at most, since an autoencoder takes no
    others.

    `size` (width, height) is the size to scale and crop videos to, by default their own; images keep theirs. Raise
    ValueError for values that cannot work.
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
            raise ValueError(f"backend {self.backend!r} is not one of {', '.join(get_args(Backend))}")

    def shapes(self, stored: IntArray) -> IntArray:
        """Return the shapes after the transform of the `stored` shapes, [clips, 3]: frames, width, height."""
        shapes = stored.copy()
        if self.size is not None:
            shapes[stored[:, 0] > 1, 1:] = self.size
        shapes[:, 0] = (np.minimum(stored[:, 0], self.max_frames) - 1) // 8 * 8 + 1
        return shapes

    def decode_into(self, video: Pixels, sample: Sample, stored: Shape, shard: str) -> Record:
        """Decode a sample of a stored shape into `video`, which has the shape after the transform.

        Raise DamagedShard, naming shard and sample.
        """
        try:
            if sample.suffix == "jpg":
                decode_image(sample.media, (stored.width, stored.height), video)
            else:
                decode(sample.media, (stored.width, stored.height), video, self.backend)
        except DamagedVideo as error:
            raise DamagedShard(f"{shard}: sample {sample.key!r}: {error}") from error
        return sample.record

    def item(self, sample: Sample, stored: Shape, shard: str) -> dict[str, Any]:
        """Return `video`: uint8 [frames, height, width, RGB]; `text`, the conditioning; `caption`; `fps`; `key`.

        Raise DamagedShard.
        """
        frames, width, height = self.shapes(np.array([stored]))[0]
        video = np.empty((frames, height, width, 3), np.uint8)
        record = self.decode_into(video, sample, stored, shard)
        text = sample.text.decode()
        return {"video": video, "text": text, "caption": record.caption, "fps": record.fps, "key": sample.key}
