"""Candidates to be judged, and what the API on loopback will say of each, worked out without asking it."""

from __future__ import annotations

from typing import Any

import torch

from nextscene.judge.base import Question
from nextscene.judge.config import ClaudeConfig
from nextscene.training.rewards.base import Candidate
from nextscene.training.rewards.frames import jpeg_frames
from tests.fakes.claude_api import AnswerRules
from tests.fakes.claude_api import Question as Heard

SETTINGS = ClaudeConfig(frames=3)
"""Few pictures: these videos have five frames."""


def candidate(number: int, step: int = 1, scene: str = "A dog barks.") -> Candidate:
    """One whose pixels, of five frames of 24×16, are its number's alone."""
    video = torch.randint(256, (5, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
    nothing = torch.zeros(1, 1)
    return Candidate("clip", scene, step, number, nothing, nothing, video, 16.0)


def question(number: int, **changes: Any) -> Question:
    pictures = jpeg_frames(candidate(number).video, 16.0, SETTINGS.frames, SETTINGS.frame_height)
    return Question(**{"clip_id": "clip", "caption": "", "frames": pictures, **changes})


def caption_of(rules: AnswerRules, number: int) -> str | None:
    """None for a refusal."""
    answer = rules.caption(_Pictures([frame.jpeg for frame in question(number).frames]))
    return answer.text


def reward_of(rules: AnswerRules, number: int, scene: str = "A dog barks.") -> float | None:
    """What is to come of it. None where a marker keeps the judge from answering."""
    caption = caption_of(rules, number)
    if caption is None or any(marker in caption for marker in rules.marked):
        return None
    return 1.0 if rules.passes(scene, caption) else 0.0


class _Pictures(Heard):
    def __init__(self, images: list[bytes]) -> None:
        super().__init__({})
        self.images = images  # type: ignore[misc]
