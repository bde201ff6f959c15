"""What makes videos of texts, and what is said of the videos that are wanted.

Tested in tests/training/generation/test_generation.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nextscene.common.config_loader import setting

if TYPE_CHECKING:
    from torch import Tensor

ORIGINAL_FPS = 25.0
"""Of LTX-Video's own pipeline, which nothing of the data of this model speaks against."""


@dataclass(frozen=True)
class Sampling:
    """The paper's (section 13), at the frame rate of the training clips, which goes into the rotary embedding too."""

    frames: int = setting(65, "Frames of a video, 8k + 1.")
    width: int = setting(832, "Its width in pixels, a multiple of 32.")
    height: int = setting(480, "Its height in pixels, a multiple of 32.")
    fps: float = setting(16.0, "Frames per second.")
    steps: int = setting(50, "Steps from noise to video.")
    guidance: float = setting(3.0, "Strength of classifier-free guidance; 1 is without.")


class Generator(Protocol):
    """A model that makes videos, in a form that never changes. `name` says which it is, in records."""

    name: str
    sampling: Sampling

    def videos(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """uint8 [B, F, H, W, RGB], on the CPU. Text and seed decide a video, whatever it is made beside of."""
        ...
