"""What can be told of a file without the product: by a decoder that forgives nothing, and by the counters of TS."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import av

from tests.damage.damaging import PACKET, VIDEO_PID, packets

_CLOCK = 90_000
_MOST_STRETCHES = 1000


@dataclass
class Told:
    """What was told, each with its time in seconds from the file's earliest stream, and how many frames there are.

    `first` is the time of the first frame that decodes without a fault; `keyframes` those of which nothing is told.
    """

    faults: list[tuple[float, str]] = field(default_factory=list)
    frames: int = 0
    begins: float = 0.0
    first: float = 0.0
    keyframes: list[float] = field(default_factory=list)

    def keyframe_before(self, time: float) -> float:
        """The last whole keyframe by a time: what is told after it may show in the frame at that time."""
        return max((at for at in self.keyframes if at <= time + 1e-3), default=self.first)

    def between(self, start: float, end: float) -> list[str]:
        return [f"{at:.2f} s: {what}" for at, what in self.faults if start <= at < end]


def told(path: Path) -> Told:
    """All faults of a file: where it cannot be opened, one at time 0."""
    found = Told()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture(), av.open(str(path), metadata_errors="ignore") as container:
            found.begins = (container.start_time or 0) / av.time_base
            _decode(container, found)
    except (av.error.FFmpegError, IndexError) as error:
        found.faults.append((0.0, f"not opened: {error}"))
    if path.suffix == ".ts":
        found.faults += [(at - found.begins, what) for at, what in gaps(path.read_bytes())]
    av.logging.set_level(None)
    found.faults.sort()
    return found


def _decode(container: av.container.InputContainer, found: Told) -> None:
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    stream.codec_context.options = {"err_detect": "explode"}
    at, stretches, clean = 0.0, 0, False
    demuxed = container.demux(stream)
    while True:
        try:
            with av.logging.Capture() as demuxers:
                packet = next(demuxed)
        except StopIteration:
            return
        except av.error.BlockingIOError:
            found.faults.append((at, "demuxer: no packet in a long stretch"))
            demuxed, stretches = container.demux(stream), stretches + 1
            if stretches > _MOST_STRETCHES:
                return
            continue
        except av.error.FFmpegError as error:
            found.faults.append((at, f"demuxer: {error.strerror}"))
            return
        before = at
        if packet.pts is not None:
            at = float(packet.pts * packet.time_base) - found.begins
        # What a demuxer complains about lies between two packets.
        found.faults += [(when, f"demuxer: {said}") for said in _errors(demuxers) for when in (before, at)]
        if packet.is_corrupt:
            found.faults.append((at, "corrupt packet"))
        try:
            with av.logging.Capture() as decoders:
                decoded = packet.decode()
        except av.error.FFmpegError as error:
            found.faults.append((at, f"decoder: {error.strerror}"))
            continue
        finally:
            found.faults += [(at, f"decoder: {said}") for said in _errors(decoders)]
        if packet.is_keyframe and not decoders:
            found.keyframes.append(at)
        for frame in decoded:
            found.frames += 1
            time = at if frame.time is None else frame.time - found.begins
            if frame.is_corrupt:
                found.faults.append((time, "corrupt frame"))
            elif not clean:
                found.first, clean = time, True


def _errors(log: list[tuple[int, str, str]]) -> list[str]:
    return [said.strip() for level, _, said in log if level <= av.logging.ERROR]


def gaps(data: bytes) -> list[tuple[float, str]]:
    """Where the continuity counter of the video jumps, or a packet has lost its sync byte (ISO 13818-1, 2.4.3.3)."""
    found: list[tuple[float, str]] = []
    at, expected, last = 0.0, None, b""
    if data[:1] != b"\x47":
        found.append((0.0, "no packet at the start"))
        data = data[_first_packet(data) :]
    for packet in packets(data):
        if packet[0] != 0x47:
            found.append((at, "sync byte lost"))
            continue
        if (packet[1] & 0x1F) << 8 | packet[2] != VIDEO_PID or not packet[3] & 0x10:
            continue
        if packet[1] & 0x80:
            found.append((at, "transport error flag"))
        if packet[1] & 0x40:
            at = _time_stamp(packet) or at
        counter = packet[3] & 0x0F
        # One repetition of a packet is allowed.
        if expected is not None and counter != expected and packet != last:
            found.append((at, f"counter {counter}, {expected} expected"))
        expected, last = (counter + 1) % 16, packet
    return found


def _first_packet(data: bytes) -> int:
    return next(
        (i for i in range(min(len(data), PACKET)) if all(data[i + k * PACKET] == 0x47 for k in range(3))), len(data)
    )


def _time_stamp(packet: bytes) -> float | None:
    payload = packet[5 + packet[4] :] if packet[3] & 0x20 else packet[4:]
    if payload[:3] != b"\0\0\1" or len(payload) < 14 or not payload[7] & 0x80:
        return None
    five = payload[9:14]
    ticks = (five[0] >> 1 & 7) << 30 | five[1] << 22 | (five[2] >> 1) << 15 | five[3] << 7 | five[4] >> 1
    return ticks / _CLOCK
