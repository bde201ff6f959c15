"""Pictures that a page contains itself. Tested in tests/training/report/test_samples.py."""

from __future__ import annotations

import base64
import io

from PIL import Image


def jpeg_data(picture: Image.Image, max_width: int, quality: int = 78) -> str:
    """Return a picture as a JPEG in base64, scaled down to `max_width` pixels if it is wider."""
    if picture.width > max_width:
        size = (max_width, max(1, round(picture.height * max_width / picture.width)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(file.getvalue()).decode()
