"""What a case is, and how one is made: patches in a file, and the colors that its clip must show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.colors.conversion import Array, Tags, between, decoded, encoded, linear, matrix_of, shown, signal_of
from tests.colors.patches import LAYOUTS, SDR, centers, write_video, written

SDR_TOLERANCE, HDR_TOLERANCE = 4.0, 6.0

HIGHLIGHTS = np.array([(400, 400, 400), (1000, 700, 500), (800, 60, 40)]) / 203.0
"""Linear light of BT.709 above the reference white: what the tone curve must bend."""


class Unmade(Exception):
    """The file could not be made as the case wants it; tells nothing of the product."""


@dataclass(frozen=True)
class Case:
    """A file and the colors (0…255) that its clip must show at `places`, shares of the displayed width and height.

    `noted` cases are told and judged by nobody: the documentation says nothing of them. `or_rejected` ones may be
    rejected instead.
    """

    group: str
    file: str
    make: Callable[[Path], None]
    size: tuple[int, int]
    expected: Array
    tolerance: float = SDR_TOLERANCE
    places: Sequence[tuple[float, float]] = ()
    noted: bool = False
    or_rejected: bool = False

    @property
    def where(self) -> Sequence[tuple[float, float]]:
        return self.places or centers()


def video(
    group: str,
    file: str,
    encoder: Sequence[str],
    tags: Tags,
    pixel_format: str = "yuv420p",
    size: tuple[int, int] = (1280, 720),
    shown_size: tuple[int, int] | None = None,
    codec: str = "",
    rgb: Array | None = None,
    alpha: Array | None = None,
    unsaid: Sequence[str] = (),
    noted: bool = False,
    or_rejected: bool = False,
    changed: Callable[[bytes], bytes] | None = None,
) -> Case:
    """A case of a video file. `unsaid` are tags that the file need not repeat to PyAV; `changed` edits the file.

    The expected colors are those of the code values that are in the file once it is made.
    """
    layout = LAYOUTS[pixel_format]
    is_rgb = "y" not in layout.order
    matrix = "gbr" if is_rgb else matrix_of(tags, codec, *(shown_size or size))
    full = codec == "mjpeg" or (tags.full if tags.full is not None else is_rgb)
    hdr = tags.transfer in ("smpte2084", "arib-std-b67")
    wanted = rgb if rgb is not None else hdr_patches(tags) if hdr else SDR
    codes = encoded(wanted, matrix, full, layout.depth)
    if layout.order == "y":
        codes[:, 1:] = 1 << (layout.depth - 1)
    top = (1 << layout.depth) - 1
    if alpha is not None:
        codes = np.column_stack([codes, np.round(alpha * top)])

    def seen(these: Array) -> Array:
        colors = shown(decoded(these[:, :3], matrix, full, layout.depth), tags)
        share = these[:, 3:] / top if alpha is not None else 1.0
        return 255 * (share * colors + (1 - share))

    expected = seen(codes)
    file = f"{group}-{file}"

    def make(folder: Path) -> None:
        try:
            path = write_video(folder / file, codes, pixel_format, size, tags, encoder)
        except ValueError as error:
            raise Unmade(str(error)) from error
        if changed is not None:
            path.write_bytes(changed(path.read_bytes()))
        wrong, kept = written(path, codes, pixel_format, tags, unsaid)
        if wrong:
            raise Unmade(wrong)
        if kept is not None and kept.shape == codes.shape:
            expected[:] = seen(kept)

    tolerance = HDR_TOLERANCE if hdr else SDR_TOLERANCE
    return Case(group, file, make, shown_size or size, expected, tolerance, noted=noted, or_rejected=or_rejected)


def hdr_patches(tags: Tags) -> Array:
    """The patches at their brightness in SDR and three highlights, as PQ or HLG signals in the tags' primaries."""
    # In place of the deep blue, whose dark channels move by 10 of 255 with one code value of a 10-bit source.
    plain = np.concatenate([SDR[:3], [np.array([40, 60, 200]) / 255], SDR[4:9]])
    light = np.concatenate([linear(plain, "bt709"), HIGHLIGHTS]) @ between("bt709", tags.primaries or "bt2020").T
    return np.clip(signal_of(light, tags.transfer), 0, 1)
