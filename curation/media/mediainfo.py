"""The needed fields of MediaInfo's report on a file. Tested in tests/curation/media/test_probe.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pymediainfo import MediaInfo

from nextscene.curation.media.color import Color

# One line per track with only the needed fields: this takes half the time of MediaInfo's full report.
_REPORT = (
    "General;General|%Format%|%Duration%\\n\n"
    "Video;Video|%Width%|%Height%|%PixelAspectRatio%|%Rotation%|%Format%|%Default%|%Duration%|%Source_Duration%|%Delay%|%ID%"
    "|%matrix_coefficients%|%transfer_characteristics%|%colour_primaries%|%colour_range%\\n\n"
)
# Fields that few files need are requested separately.
_LIGHT_REPORT = "{kind};%MaxCLL%|%MasteringDisplay_Luminance%|%transfer_characteristics%|%colour_primaries%\\n\n"
_DELAYS_REPORT = "Audio;%Delay%\\n\n"
_RATE_REPORT = "Video;%FrameRate%\\n\n"

_LONGEST_MILLISECONDS = 10.0**10
_JPEG = frozenset(["JPEG", "M-JPEG", "V_MJPEG"])


@dataclass(frozen=True)
class MediaInfoReport:
    """A file for MediaInfo to report on. `alias` is the same file by a path, which MediaInfo reads faster."""

    file: BinaryIO
    alias: Path | None = None

    def report(self, template: str) -> list[str]:
        self.file.seek(0)
        report: str = MediaInfo.parse(self.alias or self.file, parse_speed=0, output=template)
        return report.splitlines()

    def tracks(self) -> tuple[str, str, list[Track]]:
        """Return the container, its duration in milliseconds as text, and its videos."""
        lines = [line.split("|") for line in self.report(_REPORT)]
        container, lasts = next((fields[1:3] for fields in lines if fields[0] == "General"), ("", ""))
        return container, lasts, [Track(*fields[1:]) for fields in lines if fields[0] == "Video"]

    def rate(self, place: int) -> float:
        """Return the frames per second of a video; 0 if unknown."""
        return number(self.report(_RATE_REPORT)[place], 0.0)

    def peak(self, place: int) -> float:
        """Return the peak of a video in cd/m²: of its brightest pixel, else of its mastering display, else 0."""
        brightest, mastering, *_ = self.report(_LIGHT_REPORT.format(kind="Video"))[place].split("|")
        mastered = mastering.partition("max:")[2].strip()
        return number(brightest.split(" ")[0], 0.0) or number(mastered.split(" ")[0], 0.0)

    def color_of_image(self) -> Color:
        """Return transfer and primaries of a still AV1 frame. Its matrix is undone by decoding, so it is left out."""
        lines = self.report(_LIGHT_REPORT.format(kind="Image"))
        transfer, primaries = lines[-1].split("|")[2:] if lines else ("", "")
        return Color(transfer=transfer, primaries=primaries)

    def earliest_audio(self) -> float:
        """Return the time in milliseconds at which the first audio track begins; infinity if there is no audio."""
        return min((number(line, 0.0) for line in self.report(_DELAYS_REPORT)), default=math.inf)


@dataclass(frozen=True)
class Track:
    """A video as MediaInfo reports it, all values in its words."""

    width: str
    height: str
    aspect: str
    rotation: str
    codec: str
    default: str
    shown: str
    stored: str
    delay: str
    id: str
    matrix: str
    transfer: str
    primaries: str
    range: str

    @property
    def has_size(self) -> bool:
        return bool(number(self.width, 0) and number(self.height, 0))

    @property
    def milliseconds_late(self) -> float:
        return number(self.delay, 0.0)

    @property
    def color(self) -> Color:
        """Return the video's color without the peak of its light."""
        # If a stream has two values, such as "HLG / BT.2020 (10-bit)", the first is the one it is meant for.
        matrix, transfer, primaries = (
            word.partition(" / ")[0] for word in (self.matrix, self.transfer, self.primaries)
        )
        is_limited_rgb = matrix == "Identity" and self.range == "Limited"
        return Color(matrix, transfer, primaries, self.codec in _JPEG, is_limited_rgb)


def number(text: str, default: float) -> float:
    """Return a number from a report; the default if there is none or it is not finite."""
    try:
        found = float(text)
    except ValueError:
        return default
    return found if math.isfinite(found) else default


def milliseconds(text: str, default: float) -> float:
    """Return a duration from a report in milliseconds; the default if it is negative or longer than any video."""
    found = number(text, default)
    return found if 0 <= found <= _LONGEST_MILLISECONDS else default
