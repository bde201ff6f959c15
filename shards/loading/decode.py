"""Decoding a clip: the bytes of an mp4 become RGB frames, by PyAV or decord, on one thread; those of a jpg by Pillow.

The pictures of both have the same form, so that readers need not know how a clip is stored.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import ceil
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from nextscene.common.errors import DataError, UsageError
from nextscene.common.text import first_line
from nextscene.shards.loading.mp4_boxes import samples_promised

Pixels = npt.NDArray[np.uint8]
Backend = Literal["pyav", "decord"]

# A decoder pads frames to whole blocks; a stream that needs much more has a false size.
_MAX_PIXELS_OVER_SIZE = 2
_MACHINE_ERRORS = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class DamagedVideo(DataError, ValueError):
    """A video without the frames that it should have."""


class NoDecoder(UsageError, ValueError):
    """A decoding library that is not installed."""


def decode(mp4: bytes, size: tuple[int, int], out: Pixels, backend: Backend = "pyav") -> None:
    """Fill `out`, [frames, height, width, 3], with the first frames of a video of `size` (width, height).

    RGB by BT.709, full range. If `out` has another size, the picture is scaled to cover it and cropped to its center.
    Raise DamagedVideo for fewer frames or another size, NoDecoder if the library cannot be loaded.
    """
    if samples_promised(mp4) > len(mp4):
        raise DamagedVideo(f"a video of {len(mp4):,} bytes promises {samples_promised(mp4):,} frames")
    _fill(out, _BACKENDS[backend](mp4, size, (out.shape[2], out.shape[1]), len(out)), backend)


def decode_image(jpg: bytes, size: tuple[int, int], out: Pixels) -> None:
    """Fill `out`, [1, height, width, 3], with the RGB pixels of a JPEG of `size`, scaled and cropped as by `decode`.

    Raise DamagedVideo for an image that is damaged, or has another size.
    """
    _fill(out, _by_pillow(jpg, size, (out.shape[2], out.shape[1])), "Pillow")


def _fill(out: Pixels, pictures: Iterator[Pixels], library: str) -> None:
    """Fill `out` with the first pictures. Raise DamagedVideo if there are fewer, or if the library fails."""
    found = 0
    try:
        for picture in islice(pictures, len(out)):
            out[found] = picture
            found += 1
    except (DamagedVideo, NoDecoder, MemoryError):
        raise
    except Exception as error:  # the libraries raise many classes of errors, some bare RuntimeErrors
        if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
            raise
        raise DamagedVideo(f"{library} fails after {found} frames: {first_line(error)}") from error
    if found < len(out):
        raise DamagedVideo(f"the video has {found} frames, not {len(out)}")


def _by_pyav(mp4: bytes, size: tuple[int, int], target: tuple[int, int], frames: int) -> Iterator[Pixels]:
    fit = _Fit(size, target)
    with av.open(io.BytesIO(mp4), mode="r", format="mp4") as container:
        if not container.streams.video:
            raise DamagedVideo("the file has no video")
        codec = container.streams.video[0].codec_context
        codec.thread_count = 1
        codec.options = {"max_pixels": str(size[0] * size[1] * _MAX_PIXELS_OVER_SIZE)}
        for frame in container.decode(video=0):
            yield fit(frame)


def _by_pillow(jpg: bytes, size: tuple[int, int], target: tuple[int, int]) -> Iterator[Pixels]:
    with Image.open(io.BytesIO(jpg), formats=["JPEG"]) as image:
        if image.size != size or image.mode != "RGB":  # before its pixels take memory
            raise DamagedVideo(f"the image is {image.width}×{image.height} {image.mode}, not {size[0]}×{size[1]} RGB")
        yield from _fitted([np.asarray(image)], size, target)


def _by_decord(mp4: bytes, size: tuple[int, int], target: tuple[int, int], frames: int) -> Iterator[Pixels]:
    try:
        import decord
    except (ImportError, OSError) as error:
        raise _cannot_load("decord", error) from error
    reader = decord.VideoReader(io.BytesIO(mp4), ctx=decord.cpu(0), num_threads=1)
    yield from _fitted(reader.get_batch(range(frames)).asnumpy(), size, target)


_BACKENDS: dict[Backend, Callable[[bytes, tuple[int, int], tuple[int, int], int], Iterator[Pixels]]] = {
    "pyav": _by_pyav,
    "decord": _by_decord,
}


def _cannot_load(library: str, error: Exception) -> NoDecoder:
    return NoDecoder(f"{library} cannot be loaded ({first_line(error)}); install it, or decode with 'pyav'")


def _fitted(pictures: Iterable[Pixels], size: tuple[int, int], target: tuple[int, int]) -> Iterator[Pixels]:
    fit = _Fit(size, target)
    for picture in pictures:
        yield fit(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"))


class _Fit:
    """The conversion of a decoded frame to RGB pixels of the target's size."""

    def __init__(self, size: tuple[int, int], target: tuple[int, int]) -> None:
        self._size = size
        width, height = target
        scale = max(width / size[0], height / size[1])
        self._width, self._height = max(width, ceil(size[0] * scale)), max(height, ceil(size[1] * scale))
        if size == target:
            self._width, self._height = target
        self._left, self._top = (self._width - width) // 2, (self._height - height) // 2
        self._target = target
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Pixels:
        if (frame.width, frame.height) != self._size:
            raise DamagedVideo(f"the video is {frame.width}×{frame.height}, not {self._size[0]}×{self._size[1]}")
        picture = self._reformatter.reformat(
            frame, self._width, self._height, "rgb24", interpolation=Interpolation.BICUBIC, threads=1
        )
        plane = picture.planes[0]
        rows: Pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(self._height, plane.line_size)
        pixels = rows[:, : 3 * self._width].reshape(self._height, self._width, 3)
        width, height = self._target
        return pixels[self._top : self._top + height, self._left : self._left + width]
