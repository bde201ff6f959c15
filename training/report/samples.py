"""Sample videos of a stage as film strips, over its steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from nextscene.common.page.excerpt import Excerpt
from nextscene.common.page.pictures import jpeg_data
from nextscene.training.sample_layout import SAMPLES, TRUTH, is_prompt

MAX_STEPS = 8
MAX_CLIPS = 12
_STEP = re.compile(r"step-(\d+)")
_WIDTH = 720


@dataclass(frozen=True)
class StripRow:
    """A row of frames: a JPEG as base64, and the path of its video from the run's folder, "" if there is none."""

    label: str
    jpeg: str
    video: str


@dataclass(frozen=True)
class SampleStrip:
    """A scene or prompt, and its rows: the clip itself, if it is one of the data, then the model's at each step."""

    key: str
    text: Excerpt
    is_prompt: bool
    rows: tuple[StripRow, ...]


def read_strips(run: Path, stage: str) -> list[SampleStrip]:
    """Return strips of the clips of the newest evaluation, over some of the steps: the first, the last, and between."""
    folder = run / stage / SAMPLES
    steps = spread(sorted(_steps(folder)), MAX_STEPS)
    if not steps:
        return []
    newest = folder / f"step-{steps[-1]}"
    keys = sorted((path.stem for path in newest.glob("*.png")), key=lambda key: (not is_prompt(key), key))
    strips = [_strip(run, folder, key, steps) for key in keys[:MAX_CLIPS]]
    return [strip for strip in strips if strip.rows]


def spread(steps: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of the steps, evenly spread, with the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (most - 1))] for place in range(most)]


def numbered_folders(folder: Path) -> dict[int, Path]:
    """Return number → path of the folders `step-N` in a folder; none if it is not there."""
    found = ((path, _STEP.fullmatch(path.name)) for path in folder.glob("step-*"))
    return {int(match[1]): path for path, match in found if match}


def _steps(folder: Path) -> list[int]:
    return [step for step, path in numbered_folders(folder).items() if any(path.glob("*.png"))]


def _strip(run: Path, folder: Path, key: str, steps: Sequence[int]) -> SampleStrip:
    rows: list[StripRow] = []
    truth: StripRow | None = None
    for step in steps:
        place = folder / f"step-{step}"
        try:
            with Image.open(place / f"{key}.png") as opened:
                picture = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError):  # it is being written, or was deleted meanwhile
            continue
        if not is_prompt(key):
            half = picture.height // 2
            above = picture.crop((0, 0, picture.width, half))
            picture = picture.crop((0, half, picture.width, picture.height))
            truth = StripRow("truth", jpeg_data(above, _WIDTH), video_path(run, folder / TRUTH / f"{key}.mp4"))
        rows.append(StripRow(f"step {step:,}", jpeg_data(picture, _WIDTH), video_path(run, place / f"{key}.mp4")))
    text = _text(folder / f"step-{steps[-1]}" / f"{key}.txt")
    return SampleStrip(key, Excerpt.of(text), is_prompt(key), (*filter(None, [truth]), *rows))


def video_path(run: Path, path: Path) -> str:
    """Return the address of a video, relative to the page of the run; "" if there is none."""
    return quote(path.relative_to(run).as_posix()) if path.is_file() else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
