"""Filmstrips: a few small JPEGs of a clip, from its shard, or from the source if it is not in a shard.

This code does not run in the process that makes the page: decoding an untrusted video may hang or kill the process.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import av
from PIL import Image

from nextscene.common.errors import DamagedRecord
from nextscene.common.frame_sampling import evenly_spaced
from nextscene.common.scratch import scratch_folder
from nextscene.common.storage import BadLocation, Storage, StorageFault
from nextscene.curation.config import BuildConfig
from nextscene.curation.media.header_reader import HEADER_READER, HeaderError
from nextscene.curation.media.probe import ImplausibleHeader, NoVideo, UnreadableFile
from nextscene.curation.media.seek import Span
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.plan import PlannedClip
from nextscene.curation.sources import WHOLE_FILE, Root, locate
from nextscene.curation.sources.members import DamagedMember
from nextscene.curation.sources.reader import SourceChanged, SourceReader
from nextscene.curation.stages.keyframes import extract_keyframes
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.sample import Sample
from nextscene.shards.format.tar import DamagedShard
from nextscene.shards.loading.reader import ShardReader

FRAMES = 4
_BOX = (234, 135)
_MAX_BYTES = 8 << 10
_QUALITIES = (72, 55, 40, 25, 12, 5)
_MAX_FETCHED = 64 << 20
_HEADER_ERRORS = (UnreadableFile, NoVideo, ImplausibleHeader, HeaderError)
_WORDS = {"short_decode": "no frame could be decoded at this place"}


@dataclass(frozen=True)
class Filmstrip:
    """JPEGs of at most 8 KiB each, in order. If there are none, `missing` is the reason in words.

    `damaged` says that the reason is damage of the dataset.
    """

    frames: tuple[bytes, ...] = ()
    missing: str = ""
    damaged: bool = False


class FilmstripTask(Protocol):
    """A task to make a strip. It can be pickled."""

    @property
    def is_local(self) -> bool:
        """Return whether the task reads only from local disks."""

    def make(self) -> Filmstrip: ...


@dataclass(frozen=True)
class ShardFilmstripTask:
    """A task to make a strip of a kept clip, and the sha256 that its video must have."""

    out: Storage
    shard: ShardName
    clip_id: str
    mp4_sha256: str

    @property
    def is_local(self) -> bool:
        return self.out.is_local

    def make(self) -> Filmstrip:
        try:
            sample = ShardReader(self.out, self.shard).sample(self.clip_id)
        except (DamagedShard, DamagedRecord, FileNotFoundError, KeyError, StorageFault) as damage:
            is_damaged = not isinstance(damage, StorageFault)
            return Filmstrip(missing=f"it cannot be read from its shard: {damage}", damaged=is_damaged)
        if hashlib.sha256(sample.media).hexdigest() != self.mp4_sha256:
            why = "its video in the shard is damaged: it is not the one that the ledger names"
            return Filmstrip(missing=why, damaged=True)
        try:
            return Filmstrip(tuple(_small(image) for image in _pictures(sample)))
        except (av.FFmpegError, IndexError, OSError, ValueError, Image.DecompressionBombError) as error:
            return Filmstrip(missing=f"its video in the shard cannot be decoded: {error}")


def _pictures(sample: Sample) -> Iterator[Image.Image]:
    if sample.suffix == "jpg":
        yield Image.open(io.BytesIO(sample.media), formats=["JPEG"])
    else:
        yield from _frames(sample.media)


def _frames(mp4: bytes) -> Iterator[Image.Image]:
    """Yield frames that are evenly spread over a video.

    Use only keyframes if there are enough, since nothing else must be decoded for them.
    """
    with av.open(io.BytesIO(mp4), "r", format="mp4", options={"protocol_whitelist": "none"}) as container:
        video = container.streams.video[0]
        video.thread_count = 1
        packets = [packet for packet in container.demux(video) if packet.size]
        keys = [packet for packet in packets if packet.is_keyframe]
        read = keys if len(keys) >= FRAMES else packets
        wanted = [read[place] for place in evenly_spaced(len(read), FRAMES)]
        times = {packet.pts for packet in wanted}
        for packet in [*(wanted if read is keys else packets), None]:
            for frame in video.codec_context.decode(packet):
                if frame.pts in times:
                    yield _scaled(frame)


def _scaled(frame: av.VideoFrame) -> Image.Image:
    share = min(_BOX[0] / frame.width, _BOX[1] / frame.height, 1)
    width, height = (max(1, round(side * share)) for side in (frame.width, frame.height))
    image: Image.Image = frame.to_image(width=width, height=height, interpolation="AREA")  # type: ignore[no-untyped-call]
    return image


@dataclass(frozen=True)
class SourceFilmstripTask:
    """A task to make a strip of a clip that is not in a shard. The strip shows it as the cut would have shown it."""

    root: Root
    clip: PlannedClip
    config: BuildConfig

    @property
    def is_local(self) -> bool:
        return locate(self.root, self.clip.location)[0].is_local

    def make(self) -> Filmstrip:
        try:
            if why := self._too_far():
                return Filmstrip(missing=why)
            with scratch_folder() as scratch:
                reader = SourceReader(self.root, scratch)
                with reader.open(self.clip) as file:
                    measured = HEADER_READER.measure(file, self.config.limits)
                claude = replace(self.config.claude, frames=FRAMES, frame_height=_BOX[1] + 1)
                config = replace(self.config, claude=claude)
                span = Span.of(self.clip.start_ms, self.clip.end_ms)
                seen = extract_keyframes(reader.fetch(self.clip), span, measured, config, scratch)
        except (SourceChanged, DamagedMember, BadLocation, StorageFault, OSError, *_HEADER_ERRORS) as fault:
            return Filmstrip(missing=f"its source shows none: {fault}")
        if isinstance(seen, ClipOutcome):
            return Filmstrip(missing=f"its source shows none: {_WORDS.get(seen.reason, seen.detail)}")
        return Filmstrip(tuple(_small(Image.open(io.BytesIO(frame.jpeg), formats=["JPEG"])) for frame in seen))

    def _too_far(self) -> str:
        size = self.clip.size if self.clip.length == WHOLE_FILE else self.clip.length
        if size <= _MAX_FETCHED or self.is_local:
            return ""
        return f"its source is {size >> 20:,} MB in an object store, too much to fetch for a picture"


def _small(image: Image.Image) -> bytes:
    """Return a JPEG that fits into the box of a frame, in the best quality that fits into the size limit.

    Return it in the lowest quality if none fits.
    """
    image = image.convert("RGB")
    image.thumbnail(_BOX, Image.Resampling.LANCZOS)
    data = b""
    for quality in _QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        data = file.getvalue()
        if len(data) <= _MAX_BYTES:
            break
    return data
