"""Whether a clip shows what follows from a scene."""

from __future__ import annotations

import pytest

from nextscene.samples.shapes.check import check_clip
from nextscene.samples.shapes.drawing import draw_clip
from nextscene.samples.shapes.world import Combination

CLIP = draw_clip(Combination("red", "ball", "top left", "across"), 0, 9, 64, 64)


def test_a_clip_passes_if_all_is_as_it_follows() -> None:
    check = check_clip(CLIP, "A red ball rests in the top left corner. Someone pushes it along the wall.")
    assert check.passed and set(check.right.values()) == {True}
    assert check.caption == "color red, shape ball, place top left, motion across"


def test_a_clip_that_shows_something_else_fails_and_the_reason_says_why() -> None:
    check = check_clip(CLIP, "A red plank rests in the top left corner. The hook above it breaks.")
    assert not check.passed
    assert check.right == {"color": True, "shape": False, "place": True, "motion": False}
    assert check.reason == "shape ball, not plank; motion across, not vertical"


def test_a_text_of_another_world_is_refused() -> None:
    with pytest.raises(ValueError, match="of this world"):
        check_clip(CLIP, "A bunny wakes.")
