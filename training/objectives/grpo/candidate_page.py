"""The candidates of a scene, for inspection: a picture of all of them with their verdicts, and their records.

Tested in tests/training/objectives/grpo/test_candidate_page.py.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from nextscene.common.mp4 import write_mp4
from nextscene.common.text import first_line
from nextscene.training.objectives.grpo.advantage import Selected
from nextscene.training.rewards.base import Candidate, RewardVerdict
from nextscene.training.sample_layout import CANDIDATES

_COLUMNS = 8
_WIDTH = 160  # width of a candidate's picture
_EDGE = 4
_LINE = 14
_VIDEO_WIDTH = 256  # at most
_MAX_VIDEOS_HELD = 16
_COLORS = {"Pass": "#2e9e4f", "Fail": "#c23b3b", "missing": "#8a8a8a"}


@dataclass(frozen=True)
class CandidatePage:
    """The content of `candidates/step-N/<clip_id>.png` and `.json`: a group.

    `pictures` [H, W, RGB], `verdicts` and `advantages` have an entry for each candidate. `reward` is the name of the
    reward.
    """

    step: int
    clip_id: str
    text: str
    pictures: list[Tensor]
    verdicts: list[RewardVerdict]
    advantages: list[float | None]
    kept: list[Selected]
    reward: str

    @property
    def learnt_from(self) -> set[int]:
        """The numbers of the candidates to learn from."""
        return {one.number for one in self.kept if one.advantage}

    def write(self, folder: Path) -> None:
        """Write picture and records into the folder of the stage."""
        place = folder / CANDIDATES / f"step-{self.step}"
        place.mkdir(parents=True, exist_ok=True)
        boxes = _layout(self).boxes
        records = [
            {
                "candidate": number,
                "reward": verdict.reward,
                "advantage": advantage,
                "learnt_from": number in self.learnt_from,
                "verdict": _word(verdict),
                "reason": verdict.reason,
                "caption": verdict.caption,
                "model": verdict.model,
                "usd": str(verdict.usd),
                "box": boxes[number],
            }
            for number, (verdict, advantage) in enumerate(zip(self.verdicts, self.advantages, strict=True))
        ]
        page = {
            "step": self.step,
            "clip_id": self.clip_id,
            "scene": self.text,
            "judged_by": self.reward,
            "candidates": records,
        }
        (place / f"{self.clip_id}.json").write_text(
            json.dumps(page, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        _picture(self).save(place / f"{self.clip_id}.png")


def write_candidate_video(one: Candidate, folder: Path) -> None:
    """Write a small video of a candidate, beside the page of its group. Raise OSError."""
    place = folder / CANDIDATES / f"step-{one.step}"
    place.mkdir(parents=True, exist_ok=True)
    width = min(_VIDEO_WIDTH, one.video.shape[2])
    height = round(width * one.video.shape[1] / one.video.shape[2])
    frames = [np.asarray(Image.fromarray(frame.numpy()).resize((width, height))) for frame in one.video]
    write_mp4(place / f"{one.clip_id}-{one.number:02}.mp4", np.stack(frames), one.fps)


class PageWriter:
    """A thread that writes pages and videos into the folder of the stage while training continues."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "candidate-pages")
        self._pending: list[Future[None]] = []
        self._videos: deque[Future[None]] = deque()
        self._failure = ""

    def submit_videos(self, candidates: Iterable[Candidate]) -> None:
        """Write the videos of candidates. Wait for earlier ones if many are held in memory by now."""
        for one in candidates:
            if len(self._videos) == _MAX_VIDEOS_HELD:
                self._note(self._videos.popleft())
            self._videos.append(self._thread.submit(write_candidate_video, one, self._folder))

    def submit(self, pages: Iterable[CandidatePage]) -> None:
        """Write the pages of a step, after those of the step before: only one step's pictures are held at a time."""
        self._wait()
        self._pending = [self._thread.submit(page.write, self._folder) for page in pages]

    def finish(self) -> str:
        """Wait until all pages are written. Return the first reason that one could not be, or ""."""
        self._wait()
        return self._failure

    def close(self) -> None:
        """Wait until all pages are written, and end the thread."""
        self._thread.shutdown()

    def _wait(self) -> None:
        for written in (*self._videos, *self._pending):
            self._note(written)
        self._videos.clear()
        self._pending = []

    def _note(self, written: Future[None]) -> None:
        error = written.exception()
        self._failure = self._failure or (first_line(error) if error else "")


def _picture(page: CandidatePage) -> Image.Image:
    """Return a picture of the middle frames, highest reward first, each framed in the color of its verdict.

    A star marks the candidates that were learned from.
    """
    layout, learned = _layout(page), page.learnt_from
    image = Image.new("RGB", layout.size, "white")
    draw = ImageDraw.Draw(image)
    for number, (left, top, right, bottom) in layout.boxes.items():
        word = _word(page.verdicts[number])
        draw.rectangle((left - _EDGE, top - _EDGE, right + _EDGE - 1, bottom + _EDGE - 1), fill=_COLORS[word])
        small = Image.fromarray(page.pictures[number].numpy()).resize((right - left, bottom - top))
        image.paste(small, (left, top))
        draw.text((left, bottom + _EDGE), f"{number} {word}{' *' if number in learned else ''}", fill="black")
    return image


@dataclass(frozen=True)
class _Layout:
    """The size of the picture, and where each candidate is in it: left, top, right and bottom."""

    size: tuple[int, int]
    boxes: dict[int, tuple[int, int, int, int]]


def _layout(page: CandidatePage) -> _Layout:
    order = sorted(range(len(page.verdicts)), key=lambda number: -_worth(page.verdicts[number]))
    height, width, _ = page.pictures[0].shape
    high = round(_WIDTH * height / width)
    cell = (_WIDTH + 2 * _EDGE, high + 2 * _EDGE + _LINE)
    columns = min(_COLUMNS, len(order))
    boxes = {}
    for place, number in enumerate(order):
        left, top = place % columns * cell[0] + _EDGE, place // columns * cell[1] + _EDGE
        boxes[number] = (left, top, left + _WIDTH, top + high)
    return _Layout((columns * cell[0], math.ceil(len(order) / columns) * cell[1]), boxes)


def _worth(verdict: RewardVerdict) -> float:
    return -math.inf if verdict.reward is None else verdict.reward


def _word(verdict: RewardVerdict) -> str:
    if verdict.reward is None:
        return "missing"
    return "Pass" if verdict.reward >= 0.5 else "Fail"
