"""Seeds of videos: fixed by seed, scene and sample alone."""

from __future__ import annotations

from nextscene.evaluation.seeds import video_seed


def test_a_seed_stays_what_it_was_in_earlier_versions() -> None:
    assert video_seed(0, "A glass wobbles.", 0) == 7058901113785384521


def test_seeds_differ_by_seed_scene_and_sample() -> None:
    seeds = {video_seed(seed, scene, sample) for seed in (0, 1) for scene in ("a", "b") for sample in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
