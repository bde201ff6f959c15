"""Pictures that a page contains itself."""

from __future__ import annotations

import base64
import io
from itertools import islice
from pathlib import Path
from typing import Literal

import av
from PIL import Image

from nextscene.common.frame_sampling import evenly_spaced

_MAX_FRAMES = 300


def jpeg_data(picture: Image.Image, max_width: int, quality: int = 78) -> str:
    """Return a picture as a JPEG in base64, scaled down to `max_width` pixels if it is wider."""
    if picture.width > max_width:
        size = (max_width, max(1, round(picture.height * max_width / picture.width)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def video_strip(path: Path, frames: int = 4, max_width: int = 640) -> str:
    """Return frames of a video of our own, side by side, as a JPEG in base64; "" if it cannot be decoded.

    Keyframes are used if there are enough, since nothing else must be decoded for them.
    """
    try:
        pictures = _frames(path, "NONKEY", frames)
        pictures = pictures if len(pictures) == frames else _frames(path, "NONE", frames)
    except (av.FFmpegError, OSError, IndexError):
        return ""
    if not pictures:
        return ""
    width = max(1, max_width // frames)
    height = max(1, round(pictures[0].height * width / pictures[0].width))
    strip = Image.new("RGB", (width * len(pictures), height))
    for place, picture in enumerate(pictures):
        strip.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (place * width, 0))
    return jpeg_data(strip, max_width)


def _frames(path: Path, skip: Literal["NONE", "NONKEY"], count: int) -> list[Image.Image]:
    with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
        video = container.streams.video[0]
        video.thread_count = 1
        video.codec_context.skip_frame = skip
        decoded: list[Image.Image] = [
            frame.to_image()  # type: ignore[no-untyped-call]
            for frame in islice(container.decode(video), _MAX_FRAMES)
        ]
    return [decoded[place] for place in evenly_spaced(len(decoded), count)] if decoded else []
