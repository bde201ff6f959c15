"""One clip in a shard: its three members, the fixed schema of its JSON, and its validation.

The schema has a version. Up to version 2 every clip is an `mp4`; since version 3 a clip that is made of an image is a
`jpg`. A dataset keeps the version that it was begun with.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from nextscene.shards.format.record import FlatRecord
from nextscene.shards.format.sample_type import SampleType, Shape
from nextscene.shards.format.tar import DamagedShard, MemberGroup, group_bytes, read_groups

SCHEMA_VERSION = 3
IMAGES_ARE_JPEGS = 3
"""The first version of the schema in which a clip that is made of an image is a `jpg`."""
MEDIA = ("mp4", "jpg")
"""The members that hold pictures. A sample has one of them."""
KEY = re.compile(r"[a-z0-9]{16,32}")


@dataclass(frozen=True)
class Record(FlatRecord):
    """The content of `<key>.json`: the facts of a clip. `mp4_sha256` is of its `mp4` or `jpg`.

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
    """One clip in a shard. `suffix` is the kind of its `media`; `text` is the conditioning of a model."""

    key: str
    json: bytes
    media: bytes
    text: bytes
    suffix: str = "mp4"

    def __post_init__(self) -> None:
        if not KEY.fullmatch(self.key):
            raise ValueError(f"key {self.key!r} is not of the form {KEY.pattern}")

    @property
    def record(self) -> Record:
        return Record.from_bytes(self.json)

    def to_bytes(self) -> bytes:
        """Return the sample as it is in a tar, without the end mark."""
        return group_bytes(self.key, self.members)

    @property
    def members(self) -> dict[str, bytes]:
        """Return name → contents of the members, in order."""
        return {"json": self.json, self.suffix: self.media, "txt": self.text}

    @staticmethod
    def of(group: MemberGroup, shard: str) -> Sample:
        """Return the sample of a group. Raise DamagedShard, naming `shard` and the sample, for members, text or a
        record that are wrong.
        """
        suffix = next((member for member in MEDIA if tuple(group.contents) == ("json", member, "txt")), None)
        if suffix is None:
            found = ", ".join(group.contents)
            raise DamagedShard(f"{shard}: sample {group.key!r} has {found}; a clip has json, {' or '.join(MEDIA)}, txt")
        json, media, text = group.contents.values()
        try:
            sample = Sample(group.key, json, media, text, suffix)
            sample.text.decode()
            clip_id = sample.record.clip_id
        except ValueError as error:
            raise DamagedShard(f"{shard}: sample {group.key!r}: {error}") from error
        if clip_id != group.key:
            raise DamagedShard(f"{shard}: sample {group.key!r} holds the record of {clip_id!r}")
        return sample


def read_samples(file: BinaryIO, shard: str) -> Iterator[Sample]:
    """Yield the samples of a whole tar, of any version of the schema, in order, each checked for form.

    Raise DamagedShard, naming `shard`.
    """
    for group in read_groups(file, shard, CLIPS.members, CLIPS.optional):
        yield Sample.of(group, shard)


def _validate(group: MemberGroup, shard: str) -> Shape:
    sample = Sample.of(group, shard)
    record = sample.record
    if hashlib.sha256(sample.media).hexdigest() != record.mp4_sha256:
        what = "video" if sample.suffix == "mp4" else "image"
        raise DamagedShard(f"{shard}: sample {sample.key!r}: the {what} is not the one its record names")
    shape = Shape(record.frames, record.width, record.height)
    if not shape.is_possible:
        raise DamagedShard(f"{shard}: sample {sample.key!r}: no video has {shape}")
    return shape


CLIP_TYPES = {
    2: SampleType(("json", "mp4", "txt"), _validate),
    3: SampleType(("json", *MEDIA, "txt"), _validate, frozenset(MEDIA)),
}
"""The type of a dataset's clips, by the version of its schema. All of them can be read, and finished."""
CLIPS = CLIP_TYPES[SCHEMA_VERSION]


def type_of_clips(members: tuple[str, ...]) -> SampleType | None:
    """Return the type of clips with these members; None for samples that are not clips."""
    return next((kind for kind in CLIP_TYPES.values() if kind.members == members), None)
