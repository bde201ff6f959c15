"""Decoding images in a child: what hurts it is the file's own end, and the next file is decoded."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from nextscene.curation.config import RunLimits
from nextscene.curation.media import image_child, image_reader
from nextscene.curation.media.child_pool import ChildPool
from nextscene.curation.media.image_reader import IMAGE_CHILDREN, convert_image
from nextscene.curation.media.still_image import MAX_PIXELS
from nextscene.curation.outcome import ClipOutcome

LIMITS = RunLimits()
SIDE = 64


@pytest.fixture(autouse=True)
def no_child_of_another_test() -> Iterator[None]:
    IMAGE_CHILDREN.close()
    yield
    IMAGE_CHILDREN.close()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    Image.effect_noise((90, 80), 60).convert("RGB").save(tmp_path / "good.png")
    return tmp_path / "good.png"


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if image_child.__file__ in one.cmdline()]


def converted(source: Path, limits: RunLimits = LIMITS, side: int | None = SIDE) -> float | ClipOutcome:
    return convert_image(source, source.with_name("made"), side, limits)


def png_of(width: int, height: int) -> bytes:
    """A PNG of one color, a thousandth of its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(height)) + packer.flush()
    head = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_one_child_makes_squares_and_whole_pictures(good: Path) -> None:
    for side, size, form in ((SIDE, (SIDE, SIDE), "JPEG"), (None, (90, 80), "PPM"), (SIDE, (SIDE, SIDE), "JPEG")):
        assert isinstance(converted(good, side=side), float)
        with Image.open(good.with_name("made")) as made:
            assert (made.size, made.format) == (size, form)
    assert len(children()) == 1


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_truncated_image_is_damaged(tmp_path: Path, good: Path, form: str, share: float) -> None:
    whole = tmp_path / f"a.{form}"
    Image.open(good).resize((900, 800)).save(whole)
    data = whole.read_bytes()
    assert isinstance(converted(whole), float)
    whole.write_bytes(data[: int(len(data) * share)])
    found = converted(whole)
    assert isinstance(found, ClipOutcome) and (found.outcome, found.reason) == ("failed", "damaged") and found.detail


def test_a_kind_that_cannot_be_shown_is_rejected(tmp_path: Path) -> None:
    Image.fromarray(np.ones((80, 80), np.float32)).save(tmp_path / "a.tif")
    why = "its pixels are floating point, and nothing says which of them is white"
    assert converted(tmp_path / "a.tif") == ClipOutcome("rejected", "unreadable", why)


def test_an_image_of_too_many_pixels_ends_alone(tmp_path: Path, good: Path) -> None:
    (tmp_path / "wide.png").write_bytes(png_of(2 * MAX_PIXELS // 100, 101))
    found = converted(tmp_path / "wide.png")
    assert isinstance(found, ClipOutcome) and (found.outcome, found.reason) == ("failed", "damaged")
    assert "exceeds limit" in found.detail
    assert isinstance(converted(good), float)


def test_an_image_that_takes_too_much_memory_ends_alone(tmp_path: Path, good: Path) -> None:
    (tmp_path / "big.png").write_bytes(png_of(12_000, 12_000))
    assert len((tmp_path / "big.png").read_bytes()) < 1 << 20
    tight = replace(LIMITS, clip_memory_mb=300)
    why = "the image decoder takes more than 300 MB of memory"
    assert converted(tmp_path / "big.png", tight) == ClipOutcome("failed", "cut_error", why)
    assert isinstance(converted(good, tight), float)


def test_an_image_that_takes_too_long_is_one_outcome(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "endless.py"
    script.write_text(
        "import sys\nfrom nextscene.curation.media.child_loop import serve\n"
        "def answer(*_):\n    while True: pass\nserve(int(sys.argv[1]), answer)\n"
    )
    monkeypatch.setattr(image_reader, "IMAGE_CHILDREN", ChildPool(str(script), "a child that never ends"))
    found = converted(good, replace(LIMITS, clip_seconds=0.5))
    assert found == ClipOutcome("failed", "cut_timeout", "the image decoder not done in 0.5 s")


def test_one_death_is_not_believed(good: Path) -> None:
    converted(good)
    (child,) = children()
    child.kill()
    assert isinstance(converted(good), float)
    child.wait()


def test_a_target_that_cannot_be_written_is_not_the_fault_of_the_image(good: Path) -> None:
    with pytest.raises(FileNotFoundError):
        convert_image(good, good.parent / "no such folder" / "made", SIDE, LIMITS)
    assert isinstance(converted(good), float)
