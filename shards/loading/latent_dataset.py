"""Latents in shards: the output of an autoencoder for each clip, computed once. They join the clips by key."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nextscene.common.errors import DamagedRecord
from nextscene.shards.format.record import FlatRecord
from nextscene.shards.format.sample_type import SampleType, Shape
from nextscene.shards.format.tar import DamagedShard, MemberGroup
from nextscene.shards.loading.dataset import SplitDataset
from nextscene.shards.loading.sample_set import ArraySpec, Memory, SampleText, decode_sample

MEMBERS = ("json", "latent")
SCHEMA_VERSION = 2
"""Version of the schema of latents, for their manifest."""
_STORED = "<f2"
_BYTES = 2

Latent = npt.NDArray[np.float16]


@dataclass(frozen=True)
class LatentRecord(FlatRecord):
    """The content of `<key>.json` of a latent.

    `text`, `caption` and `fps` are the clip's; `frames`, `width` and `height` are those that the encoder got.
    """

    clip_id: str
    text: str
    caption: str
    frames: int
    width: int
    height: int
    fps: float
    channels: int
    latent_frames: int
    latent_width: int
    latent_height: int
    latent_sha256: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape of the array: the mean of each channel, then the log-variance that they share."""
        return self.channels + 1, self.latent_frames, self.latent_height, self.latent_width


@dataclass(frozen=True)
class LatentSample:
    """A record and its array, float16 [channels + 1, frames, height, width], little-endian in the shard."""

    record: LatentRecord
    latent: Latent

    @property
    def members(self) -> dict[str, bytes]:
        """Return name → contents of its members, in order."""
        return {"json": self.record.to_bytes(), "latent": self.latent.astype(_STORED).tobytes()}

    @staticmethod
    def of_clip(words: SampleText, delivered: Shape, latent: Latent) -> LatentSample:
        """Return the latent of a clip that the encoder got in the shape `delivered`."""
        digest = hashlib.sha256(latent.astype(_STORED).tobytes()).hexdigest()
        planes, frames, height, width = latent.shape
        record = LatentRecord(
            words.key, words.text, words.caption, *delivered, words.fps, planes - 1, frames, width, height, digest
        )
        return LatentSample(record, latent)

    @staticmethod
    def of(group: MemberGroup, shard: str) -> LatentSample:
        """Return the latent of a group. Raise DamagedShard, naming shard and sample, if members, record or size are
        wrong.
        """
        if tuple(group.contents) != MEMBERS:
            raise _damaged(group, shard, f"it has {', '.join(group.contents)}; a latent has {', '.join(MEMBERS)}")
        json, latent = group.contents.values()
        try:
            record = LatentRecord.from_bytes(json)
        except ValueError as error:
            raise _damaged(group, shard, str(error)) from error
        if record.clip_id != group.key:
            raise _damaged(group, shard, f"its record is that of {record.clip_id!r}")
        size, wanted = len(latent), math.prod(record.shape) * _BYTES
        if min(record.shape) < 1 or record.channels < 1 or size != wanted:
            raise _damaged(group, shard, f"its latent has {size:,} bytes, not those of the shape {record.shape}")
        return LatentSample(record, np.frombuffer(latent, _STORED).reshape(record.shape))


class LatentDataset(SplitDataset):
    """The latents of one split. Their shapes are in latent frames and cells, not in pixels.

    Its items: `latent`, float16 [channels + 1, frames, height, width]; `text`, `caption`, `fps`, `key`.
    """

    def __init__(self, location: str, split: str = "train", *, checksums: bool = True) -> None:
        """Open a set at a path or URI. Raise what `SplitReader` raises."""
        super().__init__(location, split, checksums, [LATENTS], "latents")
        index = self._reader.index
        self.shapes = index.shapes
        sizes = index.sizes("latent")
        self._planes = int(sizes[0] // (self.shapes[0].prod() * _BYTES))
        if self._planes < 2 or (sizes != self.shapes.prod(axis=1) * (self._planes * _BYTES)).any():
            raise DamagedRecord(f"{location} holds latents whose sizes are not those of their shapes")

    def array_spec(self, number: int) -> ArraySpec:
        """Return the spec of the posterior: [channels + 1, frames, height, width]."""
        frames, width, height = map(int, self.shapes[number])
        return ArraySpec((self._planes, frames, height, width), "float16")

    def decode_into(self, memory: Memory, number: int) -> SampleText:
        """Read latent `number` and fill `memory` with it. Raise DamagedShard."""
        sample = self._sample(number)
        memory[:] = sample.latent
        record = sample.record
        return SampleText(record.text, record.caption, record.fps, record.clip_id)

    def _item(self, number: int) -> dict[str, Any]:
        latent, words = decode_sample(self, number)
        return {"latent": latent, "text": words.text, "caption": words.caption, "fps": words.fps, "key": words.key}

    def _sample(self, number: int) -> LatentSample:
        group, shard = self._reader.group(number), str(self._reader.shard_of(number))
        sample = LatentSample.of(group, shard)
        if sample.record.shape != (wanted := self.array_spec(number).shape):
            raise _damaged(group, shard, f"its shape is {sample.record.shape}, its index says {wanted}")
        return sample


def _validate(group: MemberGroup, shard: str) -> Shape:
    sample = LatentSample.of(group, shard)
    record = sample.record
    if hashlib.sha256(group.contents["latent"]).hexdigest() != record.latent_sha256:
        raise _damaged(group, shard, "its latent is not the one its record names")
    if not np.isfinite(sample.latent).all():
        raise _damaged(group, shard, "its latent holds numbers that are not finite")
    shape = Shape(record.latent_frames, record.latent_width, record.latent_height)
    if not (shape.is_possible and Shape(record.frames, record.width, record.height).is_possible):
        raise _damaged(group, shard, f"no latent of a video has {shape}")
    return shape


def _damaged(group: MemberGroup, shard: str, what: str) -> DamagedShard:
    return DamagedShard(f"{shard}: sample {group.key!r}: {what}")


LATENTS = SampleType(MEMBERS, _validate)
