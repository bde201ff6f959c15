"""Pictures of a generated video, for a judge or a captioner that has to describe it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from PIL import Image
from torch import Tensor

from nextscene.common.frame_sampling import evenly_spaced
from nextscene.judge.api.request import Frame

_QUALITY = 90

Pictures = Sequence[tuple[float, Image.Image]]
"""Frames of a video, each with its time in seconds."""


def sampled_images(video: Tensor, fps: float, most: int, height: int) -> Iterator[tuple[float, Image.Image]]:
    """Yield up to `most` frames of a video, uint8 [F, H, W, RGB], each with its time in seconds.

    They are evenly spaced and include the first and the last frame. They are `height` pixels high, or as high as the
    video if that is less.
    """
    for place in evenly_spaced(len(video), most):
        image = Image.fromarray(video[place].numpy())
        if height < image.height:
            width = 2 * round(
                image.width * height / image.height / 2
            )  # even, because JPEG halves the resolution of the colors
            image = image.resize((max(2, width), height), Image.Resampling.BICUBIC)
        yield place / fps, image


def jpeg_frames(video: Tensor, fps: float, most: int, height: int) -> tuple[Frame, ...]:
    """Return the frames of `sampled_images` as JPEGs. The same video gives the same bytes."""
    return tuple(
        Frame(seconds, image.width, image.height, _jpeg(image))
        for seconds, image in sampled_images(video, fps, most, height)
    )


def _jpeg(image: Image.Image) -> bytes:
    with io.BytesIO() as data:
        image.save(data, "JPEG", quality=_QUALITY)
        return data.getvalue()
