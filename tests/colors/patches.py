"""Pictures of flat patches: written as exact code values, and measured in a finished clip."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

from tests.colors.conversion import Array, Tags, decoded

COLUMNS, ROWS = 4, 3
JPEG = "yuvj444p"
FRAMES = 4

SDR = (
    np.array(
        [
            (200, 40, 40),
            (195, 38, 36),
            (30, 120, 60),
            (10, 10, 200),
            (255, 255, 255),
            (0, 0, 0),
            (128, 128, 128),
            (40, 40, 40),
            (224, 172, 105),
            (141, 85, 36),
            (240, 220, 30),
            (20, 190, 210),
        ]
    )
    / 255.0
)
"""R'G'B' of the patches, row by row: reds, a green, a blue, grays, skin tones, yellow and cyan."""

H273 = {
    "matrix": {
        "gbr": 0,
        "bt709": 1,
        "": 2,
        "fcc": 4,
        "bt470bg": 5,
        "smpte170m": 6,
        "smpte240m": 7,
        "ycgco": 8,
        "bt2020nc": 9,
    },
    "primaries": {
        "bt709": 1,
        "": 2,
        "bt470m": 4,
        "bt470bg": 5,
        "smpte170m": 6,
        "smpte240m": 7,
        "bt2020": 9,
        "smpte431": 11,
        "smpte432": 12,
    },
    "transfer": {
        "bt709": 1,
        "": 2,
        "gamma22": 4,
        "gamma28": 5,
        "smpte170m": 6,
        "smpte240m": 7,
        "linear": 8,
        "iec61966-2-4": 11,
        "iec61966-2-1": 13,
        "bt2020-10": 14,
        "bt2020-12": 15,
        "smpte2084": 16,
        "arib-std-b67": 18,
    },
}
"""The numbers of the tags, by H.273."""


@dataclass(frozen=True)
class Layout:
    """How ffmpeg's pixel format lies in memory. `order` are the planes, or the samples of one packed plane."""

    order: str
    depth: int = 8
    across: int = 1
    down: int = 1
    packed: bool = False


LAYOUTS = {
    "yuv420p": Layout("yuv", 8, 2, 2),
    "yuvj420p": Layout("yuv", 8, 2, 2),
    "yuvj422p": Layout("yuv", 8, 2, 1),
    "yuv422p": Layout("yuv", 8, 2, 1),
    "yuv444p": Layout("yuv"),
    "yuvj444p": Layout("yuv"),
    "yuva420p": Layout("yuva", 8, 2, 2),
    "yuv420p10le": Layout("yuv", 10, 2, 2),
    "yuv422p10le": Layout("yuv", 10, 2, 1),
    "yuv444p10le": Layout("yuv", 10),
    "yuva444p10le": Layout("yuva", 10),
    "gbrp": Layout("gbr"),
    "gbrp10le": Layout("gbr", 10),
    "gray": Layout("y"),
    "rgb24": Layout("rgb", packed=True),
    "rgba": Layout("rgba", packed=True),
    "argb": Layout("argb", packed=True),
    "bgra": Layout("bgra", packed=True),
    "rgb48be": Layout("rgb", 16, packed=True),
}


def raw(codes: Array, pixel_format: str, width: int, height: int) -> bytes:
    """One frame of a grid of patches. `codes` are (Y, Cb, Cr) or (R, G, B), and alpha where the format has it."""
    layout = LAYOUTS[pixel_format]
    kind = np.dtype(np.uint8) if layout.depth == 8 else np.dtype(">u2" if pixel_format.endswith("be") else "<u2")
    names = "yuva" if "y" in layout.order else "rgba"
    where_y = np.arange(height) * ROWS // height
    where_x = np.arange(width) * COLUMNS // width
    picture = codes.reshape(ROWS, COLUMNS, -1)[where_y][:, where_x].astype(kind)
    planes = [picture[..., names.index(name)] for name in layout.order]
    if layout.packed:
        return np.stack(planes, axis=-1).tobytes()
    thinned = [
        plane[:: layout.down, :: layout.across] if name in "uv" and "y" in layout.order else plane
        for name, plane in zip(layout.order, planes, strict=True)
    ]
    return b"".join(np.ascontiguousarray(plane).tobytes() for plane in thinned)


def write_video(
    path: Path, codes: Array, pixel_format: str, size: tuple[int, int], tags: Tags, encoder: Sequence[str]
) -> Path:
    """A short video of patches. `encoder` are ffmpeg's output options."""
    path.parent.mkdir(parents=True, exist_ok=True)
    level = {None: "unknown", True: "pc", False: "tv"}[tags.full]
    marked = (
        f"setparams=range={level}:colorspace={tags.matrix or 'unknown'}"
        f":color_primaries={tags.primaries or 'unknown'}:color_trc={_ffmpegs(tags.transfer) or 'unknown'}"
    )
    width, height = size
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-hide_banner",
        "-loglevel",
        "error",
        "-y",
        "-f",
        "rawvideo",
        "-pix_fmt",
        pixel_format,
        "-s",
        f"{width}x{height}",
        "-r",
        "16",
        "-i",
        "pipe:",
        "-vf",
        marked,
        "-pix_fmt",
        pixel_format,
        "-threads",
        "1",
        *encoder,
        str(path),
    ]
    done = subprocess.run(command, input=raw(codes, pixel_format, *size) * FRAMES, capture_output=True, check=False)
    if done.returncode:
        raise ValueError(f"{path.name} cannot be made: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return path


def _ffmpegs(transfer: str) -> str:
    return {"gamma22": "bt470m", "gamma28": "bt470bg"}.get(transfer, transfer)


def written(
    path: Path, codes: Array, pixel_format: str, tags: Tags, ignoring: Sequence[str] = ()
) -> tuple[str, Array | None]:
    """What a file holds by PyAV's account: what is wrong with its tags and code values ("" if they are as meant), and
    the code values themselves (an encoder with loss moves them), None where it shows them in another pixel format.
    """
    kept = None
    with av.open(str(path)) as container:
        frame = next(container.decode(container.streams.video[0]))
    said = {"matrix": frame.colorspace, "primaries": frame.color_primaries, "transfer": frame.color_trc}
    wrong = [
        f"{name} is {int(said[name])} and not {number}"
        for name, number in ((name, H273[name][getattr(tags, name)]) for name in said)
        if int(said[name]) != number and name not in ignoring
    ]
    full = "j" in frame.format.name or int(frame.color_range) == 2
    if "range" not in ignoring and full != bool(tags.full):
        wrong.append(f"range is {int(frame.color_range)}")
    layout = LAYOUTS.get(frame.format.name)
    if layout is None:
        same_kind = frame.format.is_rgb and "y" not in LAYOUTS[pixel_format].order
        if not same_kind and "pixels" not in ignoring:
            wrong.append(f"pixels are {frame.format.name}")
    elif frame.format.name.replace("j", "") == pixel_format.replace("j", "") and not layout.packed:
        kept = np.array([_sample(frame, layout, *center) for center in centers()])
        names = "yuva" if "y" in layout.order else "rgba"
        kept = kept[:, np.argsort([names.index(name) for name in layout.order])]
        off = np.abs(kept - codes[:, : kept.shape[1]]).max()
        if off > 1.5 * (1 << (layout.depth - 8)):
            wrong.append(f"code values are off by {off:g}")
    return "; ".join(wrong), kept


def centers() -> list[tuple[float, float]]:
    """The middle of each patch, as shares of width and height."""
    return [((c + 0.5) / COLUMNS, (r + 0.5) / ROWS) for r in range(ROWS) for c in range(COLUMNS)]


def _sample(frame: av.VideoFrame, layout: Layout, x: float, y: float) -> list[float]:
    """The mean code value of each plane about a place."""
    kind = np.uint8 if layout.depth == 8 else np.dtype("<u2")
    values = []
    for plane in frame.planes:
        pixels = np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width]
        row, column = round(y * plane.height), round(x * plane.width)
        values.append(float(pixels[max(0, row - 5) : row + 5, max(0, column - 5) : column + 5].mean()))
    return values


@dataclass(frozen=True)
class Clip:
    """A finished clip: its tags as PyAV tells them (matrix, primaries, transfer, range), and its size."""

    frames: list[av.VideoFrame]
    tags: tuple[int, int, int, int]
    pixel_format: str

    @staticmethod
    def of(media: bytes) -> Clip:
        with av.open(BytesIO(media)) as container:
            frames = list(container.decode(container.streams.video[0]))
        first = frames[0]
        tags = (int(first.colorspace), int(first.color_primaries), int(first.color_trc), int(first.color_range))
        return Clip(frames, tags, first.format.name)

    def colors(self, places: Sequence[tuple[float, float]]) -> Array:
        """R'G'B' (0…255) at places of the last frame, shares of width and height: by BT.709 limited, of a JPEG by
        BT.601 full.
        """
        is_jpeg = self.pixel_format == JPEG
        codes = [_sample(self.frames[-1], LAYOUTS[self.pixel_format], *place) for place in places]
        return np.clip(decoded(np.array(codes), "smpte170m" if is_jpeg else "bt709", full=is_jpeg), 0, 1) * 255


def in_clip(place: tuple[float, float], source: tuple[int, int], clip: tuple[int, int]) -> tuple[float, float] | None:
    """Where a place of the source is in a clip that covers it and is cropped about the center; None if outside."""
    scale = max(clip[0] / source[0], clip[1] / source[1])
    x, y = ((place[i] - 0.5) * source[i] * scale / clip[i] + 0.5 for i in (0, 1))
    return (x, y) if 0.03 < x < 0.97 and 0.03 < y < 0.97 else None
