"""The search for damage, in a process of its own: a span is decoded packet by packet, and each fault gets its time.

    python damage_child.py SOURCE CONTAINERS STREAM FIRST SECONDS TARGET

`FIRST` is the time of the clip's first frame, `SECONDS` the longest duration that the clip may have. Each fault that
the clip shows becomes a line of JSON in `TARGET`: its time, and the message of the demuxer or decoder.

Tested in tests/damage/test_damage.py.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av

_COVER = av.stream.Disposition.attached_pic
_STEPS = (2.0, 8.0, 32.0, 128.0)
"""Seconds to go back before the clip."""
_ROUNDING = 0.001
"""Seconds by which two libraries may differ about the same time."""
_SILENT_DECODER = "libdav1d"
"""The decoder that reports errors only in its log and returns a picture nevertheless."""
_MISSES_REFERENCE = re.compile(r"mmco|reference|co located|frame num gap|unref", re.IGNORECASE)
"""Messages about a picture that refers to pictures before the first keyframe. It is whole: it need not use them."""
_INTERRUPTIONS = 1000
"""The number of times that a demuxer is made to continue after it finds nothing in a part of a file."""


@dataclass(frozen=True)
class DecodeFault:
    """A message about the time between two packets, or about one packet. Times are in seconds."""

    begin: float
    end: float
    said: str


@dataclass(frozen=True)
class ShownFrame:
    """A decoded frame or a keyframe, and its time in seconds."""

    time: float
    is_key: bool


@dataclass(frozen=True)
class Video:
    """One video of a file, named as in ffmpeg: `V:1` is the second one without counting covers, `i:256` has that id."""

    source: str
    containers: str
    stream: str

    @contextmanager
    def opened(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream, float]]:
        """Yield the container, the video, and the time stamp in seconds that counts as 0."""
        options = {"protocol_whitelist": "file", "format_whitelist": self.containers}
        with av.open(self.source, options=options) as container:
            videos = [one for one in container.streams.video if not one.disposition & _COVER]
            kind, _, number = self.stream.partition(":")
            video = videos[int(number)] if kind == "V" else next(one for one in videos if one.id == int(number))
            video.codec_context.thread_count = 1
            video.codec_context.options = {"err_detect": "explode"}
            yield container, video, (container.start_time or 0) / av.time_base


def faults(video: Video, first: float, seconds: float) -> Iterator[DecodeFault]:
    """Yield the faults that the clip shows, including earlier ones if its frames are predicted from damaged ones."""
    begin = _before_two_keyframes(video, first)
    found: list[DecodeFault] = []
    whole_since = float("-inf")
    with video.opened() as (container, stream, origin):
        if begin > 0:
            container.seek(round((origin + begin) * av.time_base))
        for event in _events(container, stream, origin):
            if isinstance(event, DecodeFault):
                found.append(event)
            elif event.time >= first + seconds:
                break
            elif event.is_key and event.time <= first + _ROUNDING:
                whole_since = event.time
    yield from (fault for fault in found if fault.end >= whole_since and fault.begin < first + seconds)


def _before_two_keyframes(video: Video, first: float) -> float:
    """Return a time to decode from, with at least two keyframes between it and the clip; else the file's begin.

    After the first keyframe a decoder may miss earlier pictures and complain; from the second on it misses nothing.
    """
    with video.opened() as (container, stream, origin):
        for begin in (first - step for step in _STEPS if step < first):
            container.seek(round((origin + begin) * av.time_base))
            keys = 0
            for packet in container.demux(stream):
                if packet.pts is None or packet.time_base is None or packet.pts * packet.time_base - origin > first:
                    break
                keys += packet.is_keyframe
            if keys > 1:
                return begin
    return 0.0


def _events(
    container: av.container.InputContainer, video: av.VideoStream, origin: float
) -> Iterator[DecodeFault | ShownFrame]:
    """Yield the faults and the shown frames in the order of decoding."""
    time, keys = 0.0, 0
    for packet, said in _packets(container, video):
        before = time
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and packet.time_base is not None:
            time = float(stamp * packet.time_base) - origin
        if said:
            yield DecodeFault(min(before, time), max(before, time), said)
        if packet.is_corrupt:
            yield DecodeFault(time, time, "the packet is corrupt: some of it was lost on the way")
        keys += packet.is_keyframe
        with av.logging.Capture() as log:
            try:
                frames, failed = video.codec_context.decode(packet), ""
            except av.FFmpegError as error:
                frames, failed = [], error.strerror or type(error).__name__
        if keys == 1 and failed and log and all(_MISSES_REFERENCE.search(message) for _, _, message in log):
            failed = ""
        complaint = next((message.strip() for _, name, message in log if name == _SILENT_DECODER), failed)
        if complaint:
            yield DecodeFault(time, time, complaint)
        elif packet.is_keyframe:
            yield ShownFrame(time, is_key=True)
        for frame in frames:
            when = time if frame.time is None else frame.time - origin
            yield (
                DecodeFault(when, when, "the frame is corrupt") if frame.is_corrupt else ShownFrame(when, is_key=False)
            )


def _packets(
    container: av.container.InputContainer, video: av.VideoStream
) -> Iterator[tuple[av.Packet[av.VideoStream], str]]:
    """Yield each packet with the demuxer's first message on the way to it, or ""."""
    demuxer = container.format.name
    packets, interruptions, said = container.demux(video), 0, ""
    while interruptions < _INTERRUPTIONS:
        with av.logging.Capture() as log:
            try:
                found = next(packets, None)
                interrupted = False
            except BlockingIOError:
                packets, interruptions, interrupted = container.demux(video), interruptions + 1, True
        said = said or next((message.strip() for _, name, message in log if name == demuxer), "")
        if interrupted:
            continue
        if found is None:
            return
        yield found, said
        said = ""


def main(source: str, containers: str, stream: str, first: str, seconds: str, target: str) -> None:
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    with Path(target).open("w", encoding="utf-8") as file:
        for fault in faults(Video(source, containers, stream), float(first), float(seconds)):
            file.write(json.dumps([fault.begin, fault.said]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
