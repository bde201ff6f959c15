"""Healthy files that make decoders complain, or might: each must be kept, whole and in spans, and show what it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from tests.damage.damaging import PACKET, packets
from tests.damage.footage import GOP, RATE, SECONDS, encode
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
    "xvid.avi": ("-c:v", "libxvid", "-q:v", "2", "-g", "48", "-bf", "2"),
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
    """A file, whether it is of the footage (or "loose": from some frame of it on), and how long it lasts."""

    path: Path
    footage: str
    seconds: float

    def spans(self) -> list[Span]:
        """The whole, the middle, and near the end; of less than a second and a half only the whole."""
        if self.seconds < 1.5:
            return [WHOLE]
        middle = (1.5, 2.5) if self.seconds > 3 else (0.3, 1.0)
        end = round(self.seconds - 0.1, 3)
        return [WHOLE, middle, (round(max(middle[0] + 0.05, end - 0.9), 3), end)]


def false_alarms(folder: Path, words: Sequence[str] = ("",)) -> list[tuple[str, str, str]]:
    """(right or ALARM, file and span, evidence) of all healthy files, or those whose names hold one of the words."""
    files = [one for one in all_healthy(folder) if any(word in one.path.name for word in words)]
    asked = [(str(one.path), span) for one in files for span in one.spans()]
    ended = through_the_product(asked, folder)
    lines = []
    for one in files:
        for span in one.spans():
            end, name = ended[str(one.path), span], f"healthy {one.path.name} [{span[0]:g}–{span[1] or ''}]"
            if end.mp4 is None:
                lines.append(("ALARM", name, end.said))
            elif one.footage and (wrong := wrong_frames(end.mp4, span[0], loose=one.footage == "loose")):
                lines.append(("ALARM", name, f"{len(wrong)} frames wrong, {wrong[0]}"))
            else:
                lines.append(("right", name, ""))
    return lines


def all_healthy(folder: Path) -> list[Healthy]:
    real = [path for path in sorted(CLIPS.glob("*")) if path.name not in NOT_WHOLE] if CLIPS.is_dir() else []
    made = [encode(folder / name, options) for name, options in MADE.items()]
    return [
        *(Healthy(path, "", _seconds(path)) for path in real),
        *(Healthy(path, "exact", _seconds(path)) for path in made),
        *(Healthy(path, "loose", _seconds(path)) for path in _begun_late(folder)),
        *(Healthy(path, "exact", _seconds(path)) for path in _sound_damaged(folder)),
    ]


NOT_WHOLE = ("README.md", "truncated.mp4", "audio_only.mp4", "not_a_video.mp4", "empty.mp4")


def _begun_late(folder: Path) -> list[Path]:
    """Copies that begin within a GOP: with an edit list, at a recovery point, or wherever a broadcast was joined."""
    found = []
    for stem in ("open-gop-hevc", "open-gop-h264"):
        for suffix in ("mp4", "mkv", "ts"):
            path = folder / f"from-1.3-{stem}.{suffix}"
            run_ffmpeg("-ss", "1.3", "-i", str(folder / f"{stem}.mkv"), "-c", "copy", str(path))
            found.append(path)
    for stem in ("open-gop-hevc", "open-gop-h264", "open-gop-mpeg2", "intra-refresh", "slices", "sound"):
        whole = folder / f"{stem}.ts" if stem != "sound" else encode(folder / "sound.ts", WITH_SOUND["sound.ts"], before=_TONE)
        for percent in (10, 37):
            path = folder / f"joined-{percent}-{whole.name}"
            data = whole.read_bytes()
            path.write_bytes(data[len(data) // PACKET * percent // 100 * PACKET :])
            found.append(path)
    delayed = folder / "delayed.mp4"
    run_ffmpeg("-itsoffset", "0.5", "-i", str(folder / "open-gop-h264.mp4"), "-c", "copy", str(delayed))
    return found


def _sound_damaged(folder: Path) -> list[Path]:
    found = []
    for name, options in WITH_SOUND.items():
        whole = encode(folder / name, options, before=_TONE)
        path = folder / f"damaged-{name}"
        scramble: Callable[[Path], bytes] = _scrambled_ts if path.suffix == ".ts" else _scrambled
        path.write_bytes(scramble(whole))
        found.append(path)
    return found


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
