"""Pictures in a page: small, and of the frames that were asked for."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nextscene.common.mp4 import write_mp4
from nextscene.common.page.pictures import jpeg_data, video_strip


def opened(data: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data)), formats=["JPEG"])


def test_a_picture_is_scaled_down_and_never_up() -> None:
    assert opened(jpeg_data(Image.new("RGB", (800, 200)), 400)).size == (400, 100)
    assert opened(jpeg_data(Image.new("RGBA", (80, 20)), 400)).size == (80, 20)


def test_a_strip_has_frames_from_the_first_to_the_last(tmp_path: Path) -> None:
    shades = np.linspace(20, 230, 13).astype(np.uint8)
    write_mp4(tmp_path / "a.mp4", np.broadcast_to(shades[:, None, None, None], (13, 24, 32, 3)), 16.0)
    strip = np.asarray(opened(video_strip(tmp_path / "a.mp4", 4, 320)).convert("L"))
    assert strip.shape == (60, 320)
    seen = [strip[30, 80 * place + 40] for place in range(4)]
    assert seen == pytest.approx([shades[place] for place in (0, 4, 8, 12)], abs=6)


@pytest.mark.parametrize("content", [b"", b"no video", b"\0\0\0\x18ftypmp42" + bytes(100)])
def test_what_is_no_video_has_no_strip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    assert video_strip(tmp_path / "a.mp4") == ""
    assert video_strip(tmp_path / "nothing.mp4") == ""
