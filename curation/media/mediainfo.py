"""MediaInfo: the needed fields of its report on a file. Tested in tests/curation/media/test_probe.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pymediainfo import MediaInfo

from nextscene.curation.media.color import Color

# One line a track, only what is needed: half the time of MediaInfo's full report.
_REPORT = (
    "General;General|%Format%|%Duration%\\n\n"
    "Video;Video|%Width%|%Height%|%PixelAspectRatio%|%Rotation%|%Format%|%Default%|%Duration%|%Source_Duration%|%Delay%|%ID%"
    "|%matrix_coefficients%|%transfer_characteristics%|%colour_primaries%|%colour_range%\\n\n"
)
# What few files need is asked for apart.
_LIGHT_REPORT = "{kind};%MaxCLL%|%MasteringDisplay_Luminance%|%transfer_characteristics%|%colour_primaries%\\n\n"
_DELAYS_REPORT = "Audio;%Delay%\\n\n"
_RATE_REPORT = "Video;%FrameRate%\\n\n"

_LONGEST_MILLISECONDS = 10.0**10
_JPEG = frozenset(["JPEG", "M-JPEG", "V_MJPEG"])


@dataclass(frozen=True)
class MediaInfoReport:
    """A file that MediaInfo is asked about."""

    file: BinaryIO
    alias: Path | None = None

    def report(self, template: str) -> list[str]:
        self.file.seek(0)
        report: str = MediaInfo.parse(self.alias or self.file, parse_speed=0, output=template)
        return report.splitlines()

    def tracks(self) -> tuple[str, str, list[Track]]:
        """Return the container, how long it lasts, and its videos."""
        lines = [line.split("|") for line in self.report(_REPORT)]
        container, lasts = next((fields[1:3] for fields in lines if fields[0] == "General"), ("", ""))
        return container, lasts, [Track(*fields[1:]) for fields in lines if fields[0] == "Video"]

    def rate(self, place: int) -> float:
        """Frames a second of a video."""
        return number(self.report(_RATE_REPORT)[place], 0.0)

    def peak(self, place: int) -> float:
        """cd/m² of a video: of its brightest pixel, else of the display that it was mastered on, else 0."""
        brightest, mastering, *_ = self.report(_LIGHT_REPORT.format(kind="Video"))[place].split("|")
        mastered = mastering.partition("max:")[2].strip()
        return number(brightest.split(" ")[0], 0.0) or number(mastered.split(" ")[0], 0.0)

    def color_of_image(self) -> Color:
        """Return the tags of a still AV1 frame; its matrix is gone by the time that it is decoded."""
        lines = self.report(_LIGHT_REPORT.format(kind="Image"))
        transfer, primaries = lines[-1].split("|")[2:] if lines else ("", "")
        return Color(transfer=transfer, primaries=primaries)

    def earliest_audio(self) -> float:
        """When the first sound begins, in milliseconds; infinite without any."""
        return min((number(line, 0.0) for line in self.report(_DELAYS_REPORT)), default=math.inf)


@dataclass(frozen=True)
class Track:
    """A video as MediaInfo reports it, all in its words."""

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
        """Return the color of it but for the peak of its light."""
        # Where a stream says two things of itself, "HLG / BT.2020 (10-bit)", the first is what it is meant for.
        matrix, transfer, primaries = (
            word.partition(" / ")[0] for word in (self.matrix, self.transfer, self.primaries)
        )
        is_limited_rgb = matrix == "Identity" and self.range == "Limited"
        return Color(matrix, transfer, primaries, self.codec in _JPEG, is_limited_rgb)


def number(text: str, default: float) -> float:
    """Return a number of a report, or the default where there is none, or none that is finite."""
    try:
        found = float(text)
    except ValueError:
        return default
    return found if math.isfinite(found) else default


def milliseconds(text: str, default: float) -> float:
    """Return how long something lasts by a report; the default where no video lasts so long, or so short."""
    found = number(text, default)
    return found if 0 <= found <= _LONGEST_MILLISECONDS else default
