"""Healthy files that make decoders complain, or might: each is kept, whole and in spans, and shows what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from tests.damage.damaging import PACKET, packets
from tests.damage.footage import GOP, RATE, SECONDS, encode
from tests.damage.oracle import told
from tests.damage.running import WHOLE, Span, through_the_product, wrong_frames
from tests.support import CLIPS, run_ffmpeg

_X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "16", "-g", str(GOP))
_X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "14", "-x265-params")
_OPEN_265 = (*_X265, f"keyint={GOP}:min-keyint={GOP}:bframes=4:open-gop=1:scenecut=0:log-level=none")
_OPEN_264 = (*_X264, "-bf", "3", "-x264-params", "open-gop=1:scenecut=0")
_REFRESH = (*_X264, "-x264-params", "intra-refresh=1")
_MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2", "-g", "12", "-bf", "2")
_VP9 = ("-c:v", "libvpx-vp9", "-b:v", "0", "-crf", "12", "-g", "48", "-cpu-used", "6")
_ALT_REF = (*_VP9, "-auto-alt-ref", "1", "-lag-in-frames", "25", "-deadline", "good")
_SVT = ("-c:v", "libsvtav1", "-preset", "12", "-crf", "14", "-g", "48")
_TONE = ("-f", "lavfi", "-i", f"sine=duration={SECONDS}")
_SOUND = ("-map", "1:v", "-map", "0:a")

MADE: dict[str, Sequence[str]] = {
    **{f"open-gop-hevc.{suffix}": _OPEN_265 for suffix in ("mp4", "mkv", "ts")},
    **{f"open-gop-h264.{suffix}": _OPEN_264 for suffix in ("mp4", "mkv", "ts")},
    **{f"intra-refresh.{suffix}": _REFRESH for suffix in ("mp4", "ts")},
    **{f"slices.{suffix}": (*_X264, "-slices", "4") for suffix in ("mp4", "ts")},
    "mbaff.ts": (*_X264, "-flags", "+ildct+ilme"),
    "h264.avi": (*_X264, "-bf", "0"),
    "h264.flv": (*_X264, "-bf", "2"),
    "fragmented.mp4": (*_X264, "-movflags", "frag_keyframe+empty_moov"),
    "late-sound.ts": (*_X264, "-output_ts_offset", "40"),
    "wrapping-clock.ts": (*_X264, "-output_ts_offset", "95441"),
    "open-gop-mpeg2.ts": _MPEG2,
    "open-gop-mpeg2.mpg": _MPEG2,
    "mpeg2.vob": _MPEG2,
    "mpeg1.mpg": ("-c:v", "mpeg1video", "-q:v", "2", "-g", "12", "-bf", "2"),
    "b-frames-mpeg4.avi": ("-c:v", "mpeg4", "-q:v", "2", "-g", "48", "-bf", "2"),
    "xvid.avi": ("-c:v", "libxvid", "-q:v", "2", "-g", "48"),
    "alt-ref-vp9.webm": _ALT_REF,
    "alt-ref-vp9.mp4": _ALT_REF,
    "alt-ref-vp9.mkv": _ALT_REF,
    "alt-ref-vp8.webm": ("-c:v", "libvpx", "-b:v", "8M", "-g", "48", "-auto-alt-ref", "1", "-lag-in-frames", "16"),
    "layers-av1.mkv": _SVT,
    "layers-av1.mp4": _SVT,
    "layers-av1.webm": ("-c:v", "libaom-av1", "-crf", "20", "-cpu-used", "8", "-g", "48", "-lag-in-frames", "19"),
    "prores.mov": ("-c:v", "prores_ks"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "2", "-strict", "unofficial"),
}
"""File name → ffmpeg's output options."""

WITH_SOUND: dict[str, Sequence[str]] = {
    "sound.mp4": (*_SOUND, *_X264, "-c:a", "aac"),
    "sound.mkv": (*_SOUND, *_X264, "-c:a", "aac"),
    "sound.ts": (*_SOUND, *_X264, "-c:a", "aac"),
    "sound.mpg": (*_SOUND, *_MPEG2, "-c:a", "mp2"),
    "sound.avi": (*_SOUND, "-c:v", "mpeg4", "-q:v", "2", "-c:a", "mp3"),
}
"""Files whose sound is damaged afterwards, and only that."""


@dataclass(frozen=True)
class Healthy:
    """A file; it shows the footage, "exact" or "loose" (from some frame of it on), or "" for another film."""

    path: Path
    footage: str

    def spans(self) -> list[Span]:
        """The whole, the middle, and near the end, as far as there are pictures that decode."""
        seconds, first = _seconds(self.path), 0.0
        if seconds < 1.5:
            return [WHOLE]
        if self.footage == "loose":
            first = told(self.path).first
        middle = (1.5, 2.5) if seconds > 3 else (0.3, 1.0)
        end = round(seconds - 0.1, 3)
        late = (round(max(middle[0] + 0.05, end - 0.9), 3), end)
        return [WHOLE, *(span for span in (middle, late) if span[0] >= first)]


def false_alarms(folder: Path, names: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """(right or ALARM, file and span, evidence) of all healthy files, or those of the names."""
    files = list(all_healthy(folder, names))
    asked = [(str(one.path), span) for one in files for span in one.spans()]
    ended = through_the_product(asked, folder)
    lines = []
    for one in files:
        for span in one.spans():
            end, name = ended[str(one.path), span], f"healthy {one.path.name} [{span[0]:g}–{span[1] or ''}]"
            if end.media is None:
                lines.append(("ALARM", name, end.said))
            elif one.footage and (wrong := wrong_frames(end.media, span[0], loose=one.footage == "loose")):
                lines.append(("ALARM", name, f"{len(wrong)} frames wrong, {wrong[0]}"))
            else:
                lines.append(("right", name, ""))
    return lines


def all_healthy(folder: Path, names: Sequence[str] = ()) -> Iterator[Healthy]:
    """Those of the names, or all, made in the folder; the real ones are where they are."""

    def wanted(name: str) -> bool:
        return not names or name in names

    for path in sorted(CLIPS.glob("*")) if CLIPS.is_dir() else ():
        if wanted(path.name) and path.name not in NOT_WHOLE:
            yield Healthy(path, "")
    for name, options in MADE.items():
        if wanted(name):
            yield Healthy(encode(folder / name, options), "exact")
    for name in WITH_SOUND:
        if wanted(f"damaged-{name}"):
            yield Healthy(_sound_damaged(folder, name), "exact")
    for name, (whole, make) in BEGUN_LATE.items():
        if wanted(name):
            options = {**MADE, **WITH_SOUND}[whole]
            source = encode(folder / f"whole-{whole}", options, before=_TONE if whole in WITH_SOUND else ())
            make(source, folder / name)
            yield Healthy(folder / name, "loose")


NOT_WHOLE = ("README.md", "truncated.mp4", "audio_only.mp4", "not_a_video.mp4", "empty.mp4")


def _copied(*options: str) -> Callable[[Path, Path], None]:
    return lambda source, path: run_ffmpeg(*options, "-i", str(source), "-c", "copy", str(path))


def _joined(percent: int) -> Callable[[Path, Path], None]:
    """As a receiver gets it that is switched on within a broadcast."""

    def joined(source: Path, path: Path) -> None:
        data = source.read_bytes()
        path.write_bytes(data[len(data) // PACKET * percent // 100 * PACKET :])

    return joined


_OPEN = ("open-gop-hevc", "open-gop-h264")
_BROADCAST = ("open-gop-hevc.ts", "open-gop-h264.ts", "open-gop-mpeg2.ts", "slices.ts", "sound.ts")
BEGUN_LATE: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    **{
        f"from-1.3-{one}.{suffix}": (f"{one}.{suffix}", _copied("-ss", "1.3"))
        for one in _OPEN
        for suffix in ("mp4", "mkv", "ts")
    },
    **{f"joined-{percent}-{one}": (one, _joined(percent)) for one in _BROADCAST for percent in (10, 37)},
    "joined-10-intra-refresh.ts": ("intra-refresh.ts", _joined(10)),
    "delayed.mp4": ("open-gop-h264.mp4", _copied("-itsoffset", "0.5")),
}
"""Files that begin within a GOP, with an edit list, or late: name → the file that it is made from, and how."""


def _sound_damaged(folder: Path, name: str) -> Path:
    whole = encode(folder / name, WITH_SOUND[name], before=_TONE)
    path = folder / f"damaged-{name}"
    path.write_bytes(_scrambled_ts(whole) if path.suffix == ".ts" else _scrambled(whole))
    return path


def _scrambled(path: Path) -> bytes:
    """With the second half of each other packet of sound inverted."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for number, packet in enumerate(container.demux(audio=0)):
            where = data.find(bytes(packet)) if packet.size > 32 else -1
            if where < 0 or number % 2:
                continue
            half = slice(where + packet.size // 2, where + packet.size)
            data[half] = bytes(byte ^ 0xFF for byte in data[half])
    return bytes(data)


def _scrambled_ts(path: Path) -> bytes:
    """With a third of the packets of sound lost, and the payload of another third inverted."""
    kept, number = [], 0
    for packet in packets(path.read_bytes()):
        if (packet[1] & 0x1F) << 8 | packet[2] == 0x101 and not packet[1] & 0x40:
            number += 1
            if number % 3 == 0:
                continue
            if number % 3 == 1:
                packet = packet[:100] + bytes(byte ^ 0xFF for byte in packet[100:])
        kept.append(packet)
    return b"".join(kept)


def _seconds(path: Path) -> float:
    """How long the pictures last, by their time stamps: from the earliest stream to the end of the last frame."""
    if path.suffix in (".png", ".jpg"):
        return 0.0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        begin = (container.start_time or 0) / av.time_base
        times = [float(p.pts * p.time_base) for p in container.demux(stream) if p.pts is not None]
        return max(times) - begin + float(1 / (stream.average_rate or RATE))
