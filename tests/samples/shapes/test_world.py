"""The rules of the world: what follows from a scene, and which combinations are held out."""

from __future__ import annotations

from itertools import combinations as pairs_of

import pytest

from nextscene.samples.shapes.world import (
    ATTRIBUTES,
    CAUSES,
    COLORS,
    MOTIONS,
    PLACES,
    RARE,
    SHAPES,
    Combination,
    caption_text,
    cause_in,
    causes_of,
    combinations,
    scene_text,
    what_follows,
    what_is_shown,
)

CHOICES = range(60)


def test_a_scene_says_what_follows_in_all_its_wordings() -> None:
    for combination in combinations():
        for cause in causes_of(combination):
            scenes = {scene_text(combination, cause, choice) for choice in CHOICES}
            assert len(scenes) > 5
            assert {what_follows(scene) for scene in scenes} == {combination}
            assert {cause_in(scene) for scene in scenes} == {cause}


def test_a_caption_says_what_is_shown_in_all_its_wordings() -> None:
    for combination in combinations():
        captions = {caption_text(combination, choice) for choice in CHOICES}
        assert len(captions) == 12
        assert {what_is_shown(caption) for caption in captions} == {combination}


def test_each_combination_has_a_cause_whose_effect_depends_on_the_place() -> None:
    assert all(causes_of(combination) for combination in combinations())
    assert {place: CAUSES["cut"].effect(place) for place in PLACES} == {
        **{"top left": "vertical", "top right": "vertical"},
        **{"bottom left": "still", "bottom right": "still"},
    }


def test_no_scene_has_the_words_of_a_motion() -> None:
    """The event is not copied: no caption's words for a motion are in a scene."""
    words = ("rolls", "slides", "rises", "floats", "falls", "drops", "flies", "stays", "move", "across", "opposite")
    for combination in combinations():
        for cause in CAUSES:
            scene = scene_text(combination, cause, 0)
            assert not [word for word in words if word in scene]


def test_a_fifth_is_held_out_and_each_two_values_are_still_seen_together() -> None:
    everything = combinations()
    held_out = [one for one in everything if one.is_held_out]
    assert len(everything) == len(COLORS) * len(SHAPES) * len(PLACES) * len(MOTIONS) == 240
    assert len(held_out) == 48
    seen = [one for one in everything if not one.is_held_out]
    for first, second in pairs_of(range(len(ATTRIBUTES)), 2):
        possible = {(one[first], one[second]) for one in everything}
        assert {(one[first], one[second]) for one in seen} == possible


@pytest.mark.parametrize("text", ["", "A red ball rests.", "A red ball rests in the top left corner.", "A cat sleeps."])
def test_a_text_that_is_no_scene_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="of this world"):
        what_follows(text)


def test_a_caption_is_no_scene_and_a_scene_no_caption() -> None:
    one = Combination("red", "ball", "top left", "across")
    with pytest.raises(ValueError, match="cause"):
        what_follows(caption_text(one, 0))
    with pytest.raises(ValueError, match="motion"):
        what_is_shown(scene_text(one, RARE, 0))
