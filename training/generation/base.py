"""What makes videos of texts, and what is said of the videos that are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

ORIGINAL_FPS = 25.0
"""Of LTX-Video's own pipeline, which nothing of the data of this model speaks against."""


@dataclass(frozen=True)
class Sampling:
    """The paper's (section 13), at the frame rate of the training clips, which goes into the rotary embedding too."""

    frames: int = 65
    width: int = 832
    height: int = 480
    fps: float = 16.0
    steps: int = 50
    guidance: float = 3.0


class Generator(Protocol):
    """A model that makes videos, in a form that never changes. `name` says which it is, in records."""

    name: str
    sampling: Sampling

    def videos(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """uint8 [B, F, H, W, RGB], on the CPU. Text and seed decide a video, whatever it is made beside of."""
        ...
