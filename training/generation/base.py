"""Interface of a generator of videos from texts, and the sampling settings.

Tested in tests/training/generation/test_generation.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nextscene.common.config_loader import setting

if TYPE_CHECKING:
    from torch import Tensor

ORIGINAL_FPS = 25.0
"""Frames per second of LTX-Video's own pipeline. Our data gives no reason to use another for the original model."""


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. The defaults are the paper's (section 13), with the frame rate of the training clips.

    The rotary embedding depends on the frame rate too.
    """

    frames: int = setting(65, "Frames of a video, 8k + 1.")
    width: int = setting(832, "Its width in pixels, a multiple of 32.")
    height: int = setting(480, "Its height in pixels, a multiple of 32.")
    fps: float = setting(16.0, "Frames per second.")
    steps: int = setting(50, "Steps from noise to video.")
    guidance: float = setting(3.0, "Strength of classifier-free guidance; 1 is without.")

    @staticmethod
    def trained_at(determining: Mapping[str, Any]) -> Sampling:
        """Return the defaults, with the length and the size of a run with these identity settings."""
        names = {"frames": "data.max_frames", "width": "data.width", "height": "data.height"}
        return Sampling(**{field: determining[name] for field, name in names.items() if name in determining})


class Generator(Protocol):
    """A model that makes videos, all with the same sampling settings. `name` identifies it in records."""

    name: str
    sampling: Sampling

    def videos(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Return videos, uint8 [B, F, H, W, RGB], on the CPU.

        A video depends only on its text and its seed, not on the rest of the batch.
        """
        ...
