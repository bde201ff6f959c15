"""One clip in a shard: its three members, the fixed schema of its JSON, and its validation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from nextscene.shards.format.record import FlatRecord
from nextscene.shards.format.sample_type import SampleType, Shape
from nextscene.shards.format.tar import DamagedShard, MemberGroup, group_bytes, read_groups

MEMBERS = ("json", "mp4", "txt")
SCHEMA_VERSION = 2
KEY = re.compile(r"[a-z0-9]{16,32}")


@dataclass(frozen=True)
class Record(FlatRecord):
    """The content of `<key>.json`: the facts of a clip.

    Unknown text is "", an unknown number -1. `start` and `end` are seconds in the source video; the clip shows `frames`
    frames from `start` on, at `fps` frames per second.
    """

    clip_id: str
    source: str
    start: float
    end: float
    caption: str
    scene_description: str
    verdict: str
    rounds: int
    judge: str
    judge_model: str
    prompt_sha256: str
    frames: int
    fps: float
    width: int
    height: int
    mp4_sha256: str
    source_width: int
    source_height: int
    provenance: str


@dataclass(frozen=True)
class Sample:
    """One clip in a shard. `text` is the conditioning of a model."""

    key: str
    json: bytes
    mp4: bytes
    text: bytes

    def __post_init__(self) -> None:
        if not KEY.fullmatch(self.key):
            raise ValueError(f"key {self.key!r} is not of the form {KEY.pattern}")

    @property
    def record(self) -> Record:
        return Record.from_bytes(self.json)

    def to_bytes(self) -> bytes:
        """Return the sample as it is in a tar, without the end mark."""
        return group_bytes(self.key, MEMBERS, (self.json, self.mp4, self.text))

    @staticmethod
    def of(group: MemberGroup, shard: str) -> Sample:
        """Return the sample of a group. Raise DamagedShard, naming `shard` and the sample, for text or a record that is
        wrong.
        """
        try:
            sample = Sample(group.key, *group.contents)
            sample.text.decode()
            clip_id = sample.record.clip_id
        except ValueError as error:
            raise DamagedShard(f"{shard}: sample {group.key!r}: {error}") from error
        if clip_id != group.key:
            raise DamagedShard(f"{shard}: sample {group.key!r} holds the record of {clip_id!r}")
        return sample


def read_samples(file: BinaryIO, shard: str) -> Iterator[Sample]:
    """Yield the samples of a whole tar, in order, each checked for form. Raise DamagedShard, naming `shard`."""
    for group in read_groups(file, shard, MEMBERS):
        yield Sample.of(group, shard)


def _validate(group: MemberGroup, shard: str) -> Shape:
    sample = Sample.of(group, shard)
    record = sample.record
    if hashlib.sha256(sample.mp4).hexdigest() != record.mp4_sha256:
        raise DamagedShard(f"{shard}: sample {sample.key!r}: the video is not the one its record names")
    shape = Shape(record.frames, record.width, record.height)
    if not shape.is_possible:
        raise DamagedShard(f"{shard}: sample {sample.key!r}: no video has {shape}")
    return shape


CLIPS = SampleType(MEMBERS, _validate)
