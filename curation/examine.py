"""Finding damage: a span decoded packet by packet, each fault with its time. Run in a process of its own.

    python examine.py SOURCE CONTAINERS STREAM FIRST SECONDS TARGET

`FIRST` is the time of the clip's first frame, `SECONDS` the most that the clip lasts. Writes to `TARGET` one line of
JSON for each fault inside what the clip shows: its time, and what demuxer or decoder said.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import av

_STEPS = (2.0, 8.0, 32.0, 128.0, float("inf"))
"""Seconds to go back before the clip."""


def faults(source: str, containers: str, stream: int, first: float, seconds: float) -> Iterator[tuple[float, str]]:
    """Yield the time of each fault inside the clip, and what was said of it."""
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    options = {"protocol_whitelist": "file", "format_whitelist": containers}
    with av.open(source, options=options) as container:
        videos = [one for one in container.streams.video if not one.disposition & av.stream.Disposition.attached_pic]
        video = videos[stream]
        video.codec_context.thread_count = 1
        video.codec_context.options = {"err_detect": "explode"}
        origin = (container.start_time or 0) / av.time_base
        _seek(container, video, origin, first)
        for time, said, is_frame in _events(container, video, origin):
            if said and first <= time < first + seconds:
                yield time, said
            elif is_frame and time >= first + seconds:
                return


def _seek(container: av.container.InputContainer, video: av.VideoStream, origin: float, first: float) -> None:
    """Go back so far that two keyframes lie before the clip.

    After the first of them a decoder may miss what came before, and says so; from the second on it misses nothing.
    """
    for step in _STEPS:
        begin = first - step
        if begin <= 0:
            container.seek(round(origin * av.time_base))
            return
        container.seek(round((origin + begin) * av.time_base))
        keys = 0
        for packet in container.demux(video):
            if packet.pts is None or packet.time_base is None or packet.pts * packet.time_base - origin > first:
                break
            keys += packet.is_keyframe
        if keys > 1:
            container.seek(round((origin + begin) * av.time_base))
            return


def _events(
    container: av.container.InputContainer, video: av.VideoStream, origin: float
) -> Iterator[tuple[float, str, bool]]:
    """Yield (time, what is wrong or "", whether it is a frame) of packets and frames in the order of decoding."""
    demuxer = container.format.name
    packets = container.demux(video)
    time = 0.0
    while True:
        with av.logging.Capture() as log:
            packet = next(packets, None)
        said = next((message.strip() for _, name, message in log if name == demuxer), "")
        if packet is None:
            return
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and packet.time_base is not None:
            time = float(stamp * packet.time_base) - origin
        if said:
            yield time, said, False
        if packet.is_corrupt:
            yield time, "the packet is corrupt: some of it was lost on the way", False
        try:
            frames = video.codec_context.decode(packet)
        except av.FFmpegError as error:
            yield time, error.strerror or type(error).__name__, False
            continue
        for frame in frames:
            when = time if frame.time is None else frame.time - origin
            yield when, "the frame is corrupt" if frame.is_corrupt else "", True


def main(source: str, containers: str, stream: str, first: str, seconds: str, target: str) -> None:
    with Path(target).open("w", encoding="utf-8") as file:
        for fault in faults(source, containers, int(stream), float(first), float(seconds)):
            file.write(json.dumps(fault) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
