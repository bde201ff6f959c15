"""The videos: streams of numbered frames, each encoded once and then copied into the containers that hold it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from nextscene.common.ffmpeg import executable
from tests.moments.frames import HEIGHT, WIDTH, write_numbered
from tests.moments.oracle import Span

EXACT = Fraction(1, 1_000_000)
"""ffmpeg tells where a file starts in microseconds."""
MILLISECONDS = Fraction(1, 1000)
FRAMES = 288
FPS = 24
# Where streams stay until they are copied: QuickTime keeps exact times, but does not take these.
_HOLDING = {"vp8": ".nut", "theora": ".nut", "wmv2": ".nut", "vp9": ".mp4", "av1": ".mp4"}
_PACKET = {".ts": 188, ".m2ts": 192, ".mpg": 2048}


@dataclass(frozen=True)
class Stream:
    """Numbered frames as one encoder writes them. `gop` is in frames; `edit` is a filter that drops some."""

    codec: str
    gop: int
    style: str
    encoding: Sequence[str]
    frames: int = FRAMES
    rate: str = str(FPS)
    edit: str = "null"

    @property
    def name(self) -> str:
        return "-".join(part for part in (self.codec, f"g{self.gop}", self.style) if part)

    @property
    def fps(self) -> Fraction:
        return Fraction(self.rate)

    @property
    def seconds(self) -> Fraction:
        return self.frames / self.fps


@dataclass(frozen=True)
class Container:
    """A way of writing a file. `muxing` are output arguments, `finish` is done to the written file."""

    name: str
    suffix: str
    muxing: Sequence[str] = ()
    sound: Sequence[str] = ("aac",)
    rounding: Fraction = EXACT
    finish: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Video:
    """One file of the campaign and the spans to cut from it.

    `before` are input arguments of the picture, `sound` are those of a tone; `cut_head` drops that part of the file.
    """

    container: Container
    stream: Stream
    special: str = ""
    before: Sequence[str] = ()
    sound: Sequence[str] | None = None
    muxing: Sequence[str] = ()
    cut_head: float = 0.0
    spans: Sequence[Span] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        special = f"+{self.special}" if self.special else ""
        return f"{self.container.name}-{self.stream.name}{special}{self.container.suffix}"


class Maker:
    """Makes videos in a folder, and each stream only once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def make(self, video: Video) -> Path:
        path, container = self._folder / video.name, video.container
        if path.exists():
            return path
        source, tone, mapping = self._stream(video.stream), [], ["-map", "0:v", "-c:v", "copy"]
        if video.sound is not None:
            tone = [*video.sound, "-f", "lavfi", "-i", f"sine=sample_rate=48000:duration={float(video.stream.seconds)}"]
            mapping += ["-map", "1:a", "-c:a", *container.sound]
        part = _part(path)
        _ffmpeg([*video.before, "-i", str(source), *tone, *mapping, *container.muxing, *video.muxing], part)
        if container.finish:
            container.finish(part)
        if video.cut_head:
            data, packet = part.read_bytes(), _PACKET[container.suffix]
            part.write_bytes(data[int(len(data) * video.cut_head) // packet * packet :])
        return part.rename(path)

    def _stream(self, stream: Stream) -> Path:
        path = self._folder / "streams" / f"{stream.name}{_HOLDING.get(stream.codec, '.mov')}"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            raw = self._raw(stream.frames)
            picture = ["-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", f"{WIDTH}x{HEIGHT}"]
            source = [*picture, "-framerate", stream.rate, "-i", str(raw)]
            timing = ["-vf", stream.edit, "-fps_mode", "passthrough"]
            part = _part(path)
            _ffmpeg([*source, *timing, "-g", str(stream.gop), *stream.encoding], part)
            part.rename(path)
        return path

    def _raw(self, frames: int) -> Path:
        path = self._folder / "streams" / f"{frames}.yuv"
        if not path.exists():
            write_numbered(_part(path), frames).rename(path)
        return path


def _ffmpeg(arguments: Sequence[str], path: Path) -> None:
    command = [executable(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *arguments, str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{path.name} cannot be made: {done.stderr.decode(errors='replace')[-500:]}")


def _part(path: Path) -> Path:
    """What is not yet whole; other processes may be making the same."""
    return path.with_name(f"part-{os.getpid()}-{path.name}")
