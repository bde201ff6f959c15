"""Color: its description in headers and the ffmpeg filters that convert it to BT.709.

Tested in tests/colors/test_colors.py.

`docs/data-format.md` has the conversion in formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ffmpeg as ffmpeg_line

REFERENCE_WHITE = 203.0
"""Brightness in cd/m² of HDR that becomes the white of SDR (ITU-R BT.2408)."""

_KNEE = 0.75
_USUAL_PEAK = 1000.0
_HD_SIDE = 1280

_BT709 = {"out_color_matrix": "bt709", "out_range": "tv"}
_SCALING = {"flags": "bicubic+accurate_rnd+full_chroma_int+bitexact"}
TO_BT709 = {**_BT709, **_SCALING}
"""Options of the filter `scale` for an output that matches the tags."""
BT709_TO_RGB = {"in_color_matrix": "bt709", "in_range": "tv", **_SCALING}
"""Options of the filter `scale` for plain R'G'B' of a clip's pictures."""
BT709_TO_JPEG = {
    "in_color_matrix": "bt709",
    "in_range": "tv",
    "out_color_matrix": "smpte170m",
    "out_range": "pc",
    **_SCALING,
}
"""Options of the filter `scale` for JPEGs of a clip's pictures. Every viewer takes JPEGs for full-range BT.601."""

# MediaInfo's names for the code points of ITU-T H.273 → ffmpeg's names.
_MATRICES = {
    "Identity": "gbr",
    "BT.709": "bt709",
    "FCC 73.682": "fcc",
    "BT.470 System B/G": "bt470bg",
    "BT.601": "smpte170m",
    "SMPTE 240M": "smpte240m",
    "YCgCo": "ycgco",
    "BT.2020 non-constant": "bt2020nc",
    "BT.2020 constant": "bt2020c",
    "Chromaticity-derived non-constant": "chroma-derived-nc",
    "Chromaticity-derived constant": "chroma-derived-c",
    "ICtCp": "ictcp",
}
# All of them have the white of BT.709. DCI P3 has a greener white, but is treated as if it had that of BT.709, so that
# white stays white.
_PRIMARIES = {
    "BT.709": "bt709",
    "BT.601 PAL": "bt470bg",
    "BT.601 NTSC": "smpte170m",
    "SMPTE 240M": "smpte240m",
    "BT.2020": "bt2020",
    "DCI P3": "smpte432",
    "Display P3": "smpte432",
    "EBU Tech 3213": "jedec-p22",
}
_TRANSFERS = {
    "BT.470 System M": "bt470m",
    "BT.470 System B/G": "bt470bg",
    "Linear": "linear",
    "Logarithmic (100:1)": "log100",
    "Logarithmic (316.22777:1)": "log316",
    "SMPTE 428M": "smpte428",
    "PQ": "smpte2084",
    "HLG": "arib-std-b67",
}
# Transfers that are all meant for the same display, that of ITU-R BT.1886.
_OF_A_DISPLAY = frozenset(
    ["", "BT.709", "BT.601", "SMPTE 240M", "BT.2020 (10-bit)", "BT.2020 (12-bit)", "xvYCC", "BT.1361", "sRGB/sYCC"]
)
_HDR = frozenset(["PQ", "HLG"])
_TO_FULL_RANGE = "clip((val-maxval*16/255)*255/219,0,maxval)"
# Matrices that the filter `scale` can read. Others are converted to R'G'B' by zscale first.
_PLAIN_MATRICES = frozenset(["", "gbr", "bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc"])


# Code points that are not listed here mean "unspecified" or are not known.
_MATRIX_NUMBERS = {
    0: "Identity",
    1: "BT.709",
    4: "FCC 73.682",
    5: "BT.470 System B/G",
    6: "BT.601",
    7: "SMPTE 240M",
    8: "YCgCo",
    9: "BT.2020 non-constant",
    10: "BT.2020 constant",
    14: "ICtCp",
}
_TRANSFER_NUMBERS = {
    1: "BT.709",
    4: "BT.470 System M",
    5: "BT.470 System B/G",
    6: "BT.601",
    7: "SMPTE 240M",
    8: "Linear",
    13: "sRGB/sYCC",
    14: "BT.2020 (10-bit)",
    15: "BT.2020 (12-bit)",
    16: "PQ",
    17: "SMPTE 428M",
    18: "HLG",
}
_PRIMARIES_NUMBERS = {
    1: "BT.709",
    5: "BT.601 PAL",
    6: "BT.601 NTSC",
    7: "SMPTE 240M",
    9: "BT.2020",
    11: "DCI P3",
    12: "Display P3",
    22: "EBU Tech 3213",
}


@dataclass(frozen=True)
class Color:
    """The color of a video from its headers, in MediaInfo's words; "" if they do not give it.

    `is_jpeg` says that the codec itself decides matrix and range. `is_limited_rgb` is R'G'B' from 16 to 235. `peak` is
    the brightest light in cd/m²; 0 if unknown.
    """

    matrix: str = ""
    transfer: str = ""
    primaries: str = ""
    is_jpeg: bool = False
    is_limited_rgb: bool = False
    peak: float = 0.0

    def completed(self, matrix: int, transfer: int, primaries: int) -> Color:
        """Return the color with missing values filled in from code points of ITU-T H.273."""
        return replace(
            self,
            matrix=self.matrix or _MATRIX_NUMBERS.get(matrix, ""),
            transfer=self.transfer or _TRANSFER_NUMBERS.get(transfer, ""),
            primaries=self.primaries or _PRIMARIES_NUMBERS.get(primaries, ""),
        )

    @property
    def is_hdr(self) -> bool:
        return self.transfer in _HDR

    @property
    def unknown(self) -> str:
        """Return the first of matrix, primaries and transfer that cannot be converted; "" if all can be."""
        checked = (
            (self.matrix, _MATRICES),
            (self.primaries, _PRIMARIES),
            (self.transfer, {**_TRANSFERS, **dict.fromkeys(_OF_A_DISPLAY)}),
        )
        return next((word for word, known in checked if word and word not in known), "")

    def matrix_of(self, longer_side: int) -> str:
        """Return the matrix in ffmpeg's words; "" if the decoder decides it. `longer_side` is in pixels.

        If the headers do not give it, the primaries, the transfer and the size decide.
        """
        if self.is_jpeg:
            return ""
        if self.matrix:
            return _MATRICES[self.matrix]
        if self.primaries == "BT.2020" or self.is_hdr:
            return "bt2020nc"
        return "bt709" if longer_side >= _HD_SIDE else "smpte170m"

    @property
    def is_plain(self) -> bool:
        """Return whether only matrix and range have to be converted."""
        return self.primaries in ("", "BT.709") and self.transfer in _OF_A_DISPLAY

    @property
    def source(self) -> dict[str, str]:
        """Return transfer and primaries as input options of zscale."""
        return {
            "transferin": _TRANSFERS.get(self.transfer, "bt709"),
            "primariesin": _PRIMARIES.get(self.primaries, "bt2020" if self.is_hdr else "bt709"),
        }


def scaled(
    stream: ffmpeg_line.nodes.Stream, color: Color, matrix: str, size: Mapping[str, Any], crop: tuple[int, int] | None
) -> ffmpeg_line.nodes.Stream:
    """Return the stream scaled to `size` and cropped around its center, converted to limited-range BT.709 and tagged.

    `matrix` is that of `Color.matrix_of`, or "gbr" if the stream has been converted to R'G'B'.
    """
    if color.is_limited_rgb:
        stream = stream.filter("lutrgb", **dict.fromkeys("rgb", _TO_FULL_RANGE))
    elif matrix not in _PLAIN_MATRICES:
        stream, matrix = _as_rgb(stream, color, matrix), "gbr"
    if color.is_plain:
        stream = _cropped(stream.filter("scale", **size, **TO_BT709, **_input_matrix(matrix)), crop)
    else:
        stream = _cropped(stream.filter("scale", **size, **_SCALING), crop)
        stream = _converted(stream, color, matrix)
    return tagged(stream)


def tagged(stream: ffmpeg_line.nodes.Stream) -> ffmpeg_line.nodes.Stream:
    """Tag the frames as BT.709. The encoder trusts the tags of its frames more than its own options."""
    tags = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "range": "tv"}
    return stream.filter("setsar", sar=1).filter("setparams", **tags)


def over_white(stream: ffmpeg_line.nodes.Stream, matrix: str) -> ffmpeg_line.nodes.Stream:
    """Return the pictures in R'G'B', composited over white where they are transparent."""
    stream = stream.filter("scale", **_SCALING, **_input_matrix(matrix)).filter("format", pix_fmts="rgba")
    copies = stream.split()
    white = copies[0].filter("drawbox", color="white", thickness="fill", replace=1)
    return white.overlay(copies[1], format="rgb", alpha="straight").filter("format", pix_fmts="gbrp")


def _as_rgb(stream: ffmpeg_line.nodes.Stream, color: Color, matrix: str) -> ffmpeg_line.nodes.Stream:
    """Convert to full-range R'G'B'. Transfer and primaries stay as they are."""
    stay = {"transfer": color.source["transferin"], "primaries": color.source["primariesin"]}
    stream = stream.filter("zscale", **color.source, **stay, matrixin=matrix, matrix="gbr", range="full")
    return stream.filter("format", pix_fmts="gbrp|gbrp10|gbrp12|gbrp16")


def _input_matrix(matrix: str) -> dict[str, str]:
    return {"in_color_matrix": matrix} if matrix and matrix != "gbr" else {}


def _cropped(stream: ffmpeg_line.nodes.Stream, crop: tuple[int, int] | None) -> ffmpeg_line.nodes.Stream:
    return stream.filter("crop", w=crop[0], h=crop[1]) if crop else stream


def _converted(stream: ffmpeg_line.nodes.Stream, color: Color, matrix: str) -> ffmpeg_line.nodes.Stream:
    """Convert to BT.709 through linear light, by zscale.

    HDR is compressed by a smooth knee, from the upper quarter of white to the source's peak.
    """
    source = {**color.source, "matrixin": matrix or "bt470bg"}
    target = {"transfer": "bt709", "matrix": "bt709", "primaries": "bt709", "range": "limited"}
    if color.is_hdr:
        stream = stream.filter("zscale", **source, transfer="linear", primaries="bt709", npl=REFERENCE_WHITE)
        stream = stream.filter("format", pix_fmts="gbrpf32le")
        peak = (color.peak or _USUAL_PEAK) / REFERENCE_WHITE
        if peak > 1:
            stream = stream.filter("tonemap", tonemap="mobius", param=_KNEE, desat=0, peak=f"{peak:.6f}")
        source = {}
    return stream.filter("zscale", **source, **target).filter("format", pix_fmts="yuv420p")
