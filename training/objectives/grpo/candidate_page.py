"""The candidates of a scene, for inspection: a picture of all of them with their verdicts, and their records.

Tested in tests/training/objectives/grpo/test_grpo.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from nextscene.training.objectives.grpo.advantage import Selected
from nextscene.training.objectives.grpo.group import CandidateGroup
from nextscene.training.rewards.base import RewardVerdict

_COLUMNS = 8
_WIDTH = 160  # width of a candidate's picture
_EDGE = 4
_LINE = 14
_COLOURS = {"Pass": "#2e9e4f", "Fail": "#c23b3b", "missing": "#8a8a8a"}


def write_page(
    folder: Path,
    step: int,
    group: CandidateGroup,
    verdicts: Sequence[RewardVerdict],
    advantages: Sequence[float | None],
    kept: Sequence[Selected],
    reward: str,
) -> None:
    """Write `candidates/step-N/<clip_id>.png` and `.json` into the folder of the stage."""
    place = folder / "candidates" / f"step-{step}"
    place.mkdir(parents=True, exist_ok=True)
    learnt = {one.number for one in kept if one.advantage}
    scene = group.scene
    records = [
        {
            "candidate": number,
            "reward": verdict.reward,
            "advantage": advantage,
            "learnt_from": number in learnt,
            "verdict": _word(verdict),
            "reason": verdict.reason,
            "caption": verdict.caption,
            "model": verdict.model,
            "usd": str(verdict.usd),
        }
        for number, (verdict, advantage) in enumerate(zip(verdicts, advantages, strict=True))
    ]
    page = {"step": step, "clip_id": scene.clip_id, "scene": scene.text, "judged_by": reward, "candidates": records}
    (place / f"{scene.clip_id}.json").write_text(
        json.dumps(page, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    _picture(group, verdicts, learnt).save(place / f"{scene.clip_id}.png")


def _picture(group: CandidateGroup, verdicts: Sequence[RewardVerdict], learnt: set[int]) -> Image.Image:
    """Return a picture of the middle frames, highest reward first, each framed in the color of its verdict.

    A star marks the candidates that were learned from.
    """
    order = sorted(range(len(verdicts)), key=lambda number: -_worth(verdicts[number]))
    height, width, _ = group.pictures[0].shape
    high = round(_WIDTH * height / width)
    cell = (_WIDTH + 2 * _EDGE, high + 2 * _EDGE + _LINE)
    columns = min(_COLUMNS, len(order))
    page = Image.new("RGB", (columns * cell[0], math.ceil(len(order) / columns) * cell[1]), "white")
    draw = ImageDraw.Draw(page)
    for place, number in enumerate(order):
        left, top = place % columns * cell[0], place // columns * cell[1]
        word = _word(verdicts[number])
        draw.rectangle((left, top, left + cell[0] - 1, top + high + 2 * _EDGE - 1), fill=_COLOURS[word])
        page.paste(_small(group.pictures[number], high), (left + _EDGE, top + _EDGE))
        draw.text(
            (left + _EDGE, top + high + 2 * _EDGE), f"{number} {word}{' *' if number in learnt else ''}", fill="black"
        )
    return page


def _small(picture: torch.Tensor, high: int) -> Image.Image:
    return Image.fromarray(picture.numpy()).resize((_WIDTH, high))


def _worth(verdict: RewardVerdict) -> float:
    return -math.inf if verdict.reward is None else verdict.reward


def _word(verdict: RewardVerdict) -> str:
    if verdict.reward is None:
        return "missing"
    return "Pass" if verdict.reward >= 0.5 else "Fail"
