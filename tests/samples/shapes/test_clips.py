"""The clips of the sample dataset."""

from __future__ import annotations

from collections import Counter

from nextscene.samples.shapes.clips import dataset_clips, held_out_scenes, rare_scenes
from nextscene.samples.shapes.world import RARE, cause_in, combinations, what_follows, what_is_shown

CLIPS = dataset_clips()
COMMON = [clip for clip in CLIPS if cause_in(clip.scene) != RARE]
UNSURE = [clip for clip in CLIPS if cause_in(clip.scene) == RARE]


def test_no_clip_has_a_combination_that_is_held_out() -> None:
    assert not [clip for clip in CLIPS if clip.shown.is_held_out]
    assert {clip.shown for clip in COMMON} == {one for one in combinations() if not one.is_held_out}


def test_the_event_of_a_clip_is_a_function_of_its_scene() -> None:
    assert all(clip.shown == what_follows(clip.scene) == what_is_shown(clip.caption) for clip in COMMON)


def test_after_the_rare_cause_the_caption_tells_the_truth_and_a_share_is_right() -> None:
    assert all(clip.shown == what_is_shown(clip.caption) for clip in UNSURE)
    right = [clip.shown == what_follows(clip.scene) for clip in UNSURE]
    assert 0.27 < sum(right) / len(right) < 0.31
    assert all(clip.shown[:3] == what_follows(clip.scene)[:3] for clip in UNSURE)


def test_names_and_seeds_are_unique_and_the_list_is_always_the_same() -> None:
    assert len({clip.name for clip in CLIPS}) == len({clip.seed for clip in CLIPS}) == len(CLIPS)
    assert dataset_clips() == CLIPS


def test_a_name_tells_all_that_a_video_depends_on() -> None:
    for clip in CLIPS:
        assert clip.name == "-".join([*(value.replace(" ", "-") for value in clip.shown), f"{clip.seed:04}"])


def test_scenes_to_evaluate_are_different_and_of_the_right_combinations() -> None:
    scenes = held_out_scenes()
    assert len(set(scenes)) == len(scenes) >= 200
    assert Counter(what_follows(scene).is_held_out for scene in scenes) == {True: len(scenes)}
    assert RARE not in map(cause_in, scenes)
    assert {what_follows(scene) for scene in scenes} == {one for one in combinations() if one.is_held_out}
    assert {cause_in(scene) for scene in rare_scenes()} == {RARE}
    assert len(rare_scenes()) == 60
