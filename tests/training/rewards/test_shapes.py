"""The reward `shapes`: 1 for a video that shows what follows from the scene, 0 for another, none for other scenes."""

from __future__ import annotations

from typing import Any

import torch

from nextscene.samples.shapes.drawing import draw_clip
from nextscene.samples.shapes.world import Combination
from nextscene.training.rewards import REWARDS
from nextscene.training.rewards.base import Candidate, Reward

SCENE = "A red ball rests in the top left corner. Someone pushes it along the wall."
RIGHT = Combination("red", "ball", "top left", "across")


def shapes() -> Reward:
    context: Any = None  # the reward needs nothing of it
    return REWARDS["shapes"].load().build(context)


def candidate(shown: Combination, number: int, scene: str = SCENE) -> Candidate:
    nothing = torch.zeros(1, 1)
    video = torch.from_numpy(draw_clip(shown, number, 9, 64, 64))
    return Candidate("clip", scene, 1, number, nothing, nothing, video, 16.0)


def test_verdicts_come_in_the_order_of_asking_with_what_was_seen() -> None:
    reward = shapes()
    reward.ask([candidate(RIGHT, 0), candidate(RIGHT._replace(motion="still"), 1)])
    reward.ask([candidate(RIGHT, 2)])
    verdicts = reward.verdicts()
    assert [one.reward for one in verdicts] == [1.0, 0.0, 1.0]
    assert verdicts[1].caption == "color red, shape ball, place top left, motion still"
    assert verdicts[1].reason == "motion still, not across"
    assert {one.model for one in verdicts} == {"shapes"}
    assert reward.verdicts() == []


def test_a_scene_of_another_world_has_no_verdict_which_is_not_0() -> None:
    reward = shapes()
    reward.ask([candidate(RIGHT, 0, "A bunny wakes.")])
    (verdict,) = reward.verdicts()
    assert verdict.reward is None and not verdict.retryable
    assert "of this world" in verdict.reason
