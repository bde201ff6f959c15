"""What decides the answers of the judge `claude`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ClaudeConfig:
    """The judge `claude`: the model, and how it is asked.

    `max_tokens` bounds one answer, thinking included; one that is cut off there is asked for again with twice as many.
    A clip without a caption is captioned from `frames` pictures of `frame_height` pixels, a multiple of 28, so that few
    tokens are spent on padding: 252 a picture of 832×480. `prompt_version` is that of `request_builder.py`: what was
    begun with one ends with it.
    """

    model: str = "claude-sonnet-5-5"
    effort: Literal["low", "medium", "high"] = "low"
    rounds: int = 3
    max_tokens: int = 1024
    frames: int = 8
    frame_height: int = 336
    prompt_version: Literal[1, 2] = 2
