"""The check that a clip shows what follows from its scene. Tested in tests/samples/shapes/test_check.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nextscene.samples.shapes.verifier import Observation, observe
from nextscene.samples.shapes.world import ATTRIBUTES, Combination, what_follows


@dataclass(frozen=True)
class Check:
    """The attributes that a clip shows, and those that follow from its scene."""

    seen: Observation
    expected: Combination

    @property
    def right(self) -> dict[str, bool]:
        """Attribute → whether it is as it follows from the scene."""
        return self.seen.matches(self.expected)

    @property
    def passed(self) -> bool:
        """True if all attributes are right."""
        return all(self.right.values())

    @property
    def caption(self) -> str:
        """The attributes that the clip shows, in words."""
        return ", ".join(f"{name} {getattr(self.seen, name)}" for name in ATTRIBUTES)

    @property
    def reason(self) -> str:
        """The attributes that are wrong, and what they should be."""
        wrong = [
            f"{name} {getattr(self.seen, name)}, not {getattr(self.expected, name)}"
            for name, right in self.right.items()
            if not right
        ]
        return "; ".join(wrong) or "all as it follows from the scene"


def check_clip(clip: npt.NDArray[np.uint8], scene: str) -> Check:
    """Return the check of a clip, uint8 [F, H, W, RGB]. Raise ValueError for a text that is not a scene of the world.

    The clip is read first, without knowledge of the scene.
    """
    return Check(observe(clip), what_follows(scene))
