"""Claim: the cut of an image takes at most 1.5 times what Pillow takes to decode, scale and encode it by itself.

Measured: the time of `stages.cut.cut` for a JPEG of 1,024×768 pixels and quality 90, from its file to the bytes of the
JPEG in the shard, by a child process that has started. A second figure is that of the screen and the cut of a whole
unit of such images, with its part and its ledger, for each image.

Compared with: Pillow in this process: open, `draft`, decode, scale and crop to the same square, encode with the same
quality. They take turns image by image.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.support import WORK, Result, run_alone
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.media.probe import Measured
from nextscene.curation.media.seek import Span
from nextscene.curation.plan import Plan
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sources import Source
from nextscene.curation.stages.cut import Cut, cut
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit
from nextscene.shards.format.folder_mark import DATASET, claim
from nextscene.shards.format.layout import ShardName

SIZE = (1024, 768)
IMAGES = 20
UNIT = 200
ROUNDS = 9
TARGET = 1.5
_CONFIG = BuildConfig(judge="none", test=0.0, unit_size=UNIT)


Cutting = Callable[[Path], bytes]
"""Makes the JPEG in a shard from the file of an image."""


def benchmark(rounds: int | None = None) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as name:
        folder = Path(name)
        sources = [_image(folder / "in" / f"{number:03}.jpg", number) for number in range(UNIT)]
        ours = partial(_by_cut, folder)
        done = [_round(ours, sources[:IMAGES], place % 2 == 1) for place in range(-1, rounds or ROUNDS)][1:]
        unit_ms = 1000 * _unit_seconds(folder) / UNIT  # the first round started the child
    cut_ms, bare_ms = (1000 * statistics.median(sums) / IMAGES for sums in zip(*done, strict=True))
    note = (
        f"ms for an image: the cut {cut_ms:.1f}, Pillow {bare_ms:.1f};"
        f" in a unit of {UNIT}, from its headers to its ledger, {unit_ms:.1f}"
    )
    return [Result("the cut of an image, over Pillow's own work", [a / b for a, b in done], TARGET, notes=[note])]


def _image(path: Path, number: int) -> Path:
    """Write noise of several scales, which compresses like a photograph."""
    path.parent.mkdir(exist_ok=True)
    chance, picture = np.random.default_rng(number), np.full((SIZE[1], SIZE[0], 3), 128.0)
    for scale, strength in ((256, 90), (64, 50), (16, 25), (4, 10)):
        coarse = chance.normal(size=(SIZE[1] // scale, SIZE[0] // scale, 3)) * strength
        for channel in range(3):
            layer = Image.fromarray(coarse[..., channel].astype(np.float32))
            picture[..., channel] += np.asarray(layer.resize(SIZE, Image.Resampling.BICUBIC))
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path, quality=90)
    return path


def _round(ours: Cutting, sources: list[Path], swapped: bool) -> tuple[float, float]:
    """Return the seconds of the cut and of Pillow for all sources."""
    seconds = {ours: 0.0, _by_pillow: 0.0}
    for source in sources:
        for way in (_by_pillow, ours) if swapped else (ours, _by_pillow):
            begun = time.perf_counter()
            way(source)
            seconds[way] += time.perf_counter() - begun
    return seconds[ours], seconds[_by_pillow]


def _by_cut(scratch: Path, source: Path) -> bytes:
    made = cut(source, Span(0.0, None), Measured(True, *SIZE, 0.0, "JPEG"), _CONFIG, scratch)
    if not isinstance(made, Cut):
        raise RuntimeError(f"{source}: {made}")
    return made.media


def _by_pillow(source: Path) -> bytes:
    side, file = _CONFIG.encode.image_side, BytesIO()
    with Image.open(source) as image:
        image.draft("RGB", (side, side))
        left = (image.width - image.height) // 2
        box = (left, 0, left + image.height, image.height)
        image.resize((side, side), Image.Resampling.BICUBIC, box).save(file, "JPEG", quality=95, subsampling="4:4:4")
    return file.getvalue()


def _unit_seconds(folder: Path) -> float:
    """Return the seconds for the one unit of all sources, without Ray."""
    for source in (folder / "in").glob("*.jpg"):
        source.with_suffix(".txt").write_text("noise")
    images, out = Source.at(str(folder / "in")), claim(Storage.at(folder / "out"), DATASET)
    recorded = prepare(out, images, _CONFIG)
    (unit,) = Plan(out, _CONFIG).units(ShardName("train", 0))
    job = UnitContext(_CONFIG, images.root, out, recorded.identity_settings["ffmpeg"], "benchmark")
    begun = time.perf_counter()
    ends = cut_unit(job, unit, screen_unit(job, unit), [None] * len(unit.clips))
    seconds = time.perf_counter() - begun
    if {end for end, _ in ends} != {"kept"}:
        raise RuntimeError(f"not all images are kept: {ends}")
    return seconds


if __name__ == "__main__":
    run_alone(benchmark)
