"""Damaged images: what Pillow does not load must be found, and what is kept must look as before."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageFile

from tests.damage.damaging import Damage, kinds
from tests.damage.footage import Luma, frames, psnr
from tests.damage.running import RIGHT_DB, WHOLE, through_the_product

IMAGES: dict[str, Callable[[Image.Image, Path], None]] = {
    "baseline.jpg": lambda image, path: image.save(path, quality=90),
    "progressive.jpg": lambda image, path: image.save(path, quality=90, progressive=True),
    "restarts.jpg": lambda image, path: image.save(path, quality=90, restart_marker_rows=1),
    "plain.png": lambda image, path: image.save(path),
    "lossy.webp": lambda image, path: image.save(path, quality=90),
    "lossless.webp": lambda image, path: image.save(path, lossless=True),
}


def damaged_images(name: str, folder: Path) -> list[tuple[str, str, str]]:
    """As `damaged_videos`, for one image."""
    whole = folder / name
    IMAGES[name](Image.fromarray(frames()[0]).convert("RGB"), whole)
    damages: dict[str, Damage] = {"undamaged": lambda data: data, **kinds(name)}
    files = {}
    for number, (kind, damage) in enumerate(damages.items()):
        files[kind] = folder / f"{number:02}{whole.suffix}"
        files[kind].write_bytes(damage(whole.read_bytes()))
    ended = through_the_product([(path.name, WHOLE) for path in files.values()], folder)
    lines = []
    healthy: Luma | None = None
    for kind, path in files.items():
        end = ended[path.name, WHOLE]
        fault = pillows_fault(path)
        if end.media is None:
            lines.append(("ALARM" if kind == "undamaged" else "found", f"{name} {kind}", end.said))
            continue
        shown = _luma(end.media)
        healthy = shown if healthy is None else healthy
        decibels = psnr(shown, healthy)
        word = "right" if decibels >= RIGHT_DB else "undetectable"
        if fault:
            word = "MISSED" if decibels < RIGHT_DB else "told"
        lines.append((word, f"{name} {kind}", f"{decibels:.0f} dB {fault}"))
    return lines


def pillows_fault(path: Path) -> str:
    """What Pillow says of a file that it cannot load wholly, or ""."""
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _luma(mp4: bytes) -> Luma:
    with av.open(BytesIO(mp4)) as container:
        frame = next(container.decode(video=0))
        return np.asarray(frame.to_ndarray(format="yuv420p")[: frame.height])
