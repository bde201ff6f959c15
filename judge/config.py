"""Settings that decide the answers of the judge `claude`.

Tested in tests/judge/test_claude.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nextscene.common.config_loader import setting


@dataclass(frozen=True)
class ClaudeConfig:
    """The judge `claude`: the model, and how it is asked.

    `frame_height` is a multiple of 28, so that few tokens are spent on padding: 252 for a picture of 832×480.
    `prompt_version` is that of `request_builder.py`; a dataset or run that began with one version keeps it to the end.
    """

    model: str = setting("claude-sonnet-5-5", "The model that answers.")
    effort: Literal["low", "medium", "high"] = setting("low", "How much the model thinks before it answers.")
    rounds: int = setting(3, "Attempts at a scene that passes verification; after the last one the clip is dropped.")
    max_tokens: int = setting(
        1024,
        "Most tokens of an answer, thinking included; an answer that is cut off is requested again with twice as many.",
    )
    frames: int = setting(
        8, "Frames of a clip that the model is shown to caption it; in a build, if it has no caption."
    )
    frame_height: int = setting(336, "Height of these frames in pixels, a multiple of 28.")
    prompt_version: Literal[1, 2] = setting(2, "Version of the prompts.")
