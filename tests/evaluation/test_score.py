"""Scores and their intervals: against the exact distribution of the bootstrap, and by how often they hold the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.evaluation.score import Rewards, difference, score


def rewards(*scenes: Sequence[float | None]) -> Rewards:
    return {f"scene {number}": of_scene for number, of_scene in enumerate(scenes)}


def binomial_quantile(share: float, count: int, chance: float) -> int:
    """The smallest k with P(Binomial ≤ k) ≥ share."""
    total = 0.0
    for k in range(count + 1):
        total += math.comb(count, k) * chance**k * (1 - chance) ** (count - k)
        if total >= share:
            return k
    return count


@pytest.mark.parametrize(("count", "passed"), [(10, 3), (25, 20), (60, 36), (200, 1), (400, 240)])
def test_of_single_videos_the_interval_is_the_binomials(count: int, passed: int) -> None:
    """Drawing n of n zeros and ones anew is drawing from Binomial(n, mean)."""
    found = score(rewards(*[[1.0]] * passed, *[[0.0]] * (count - passed)))
    assert found is not None and found.mean == passed / count
    exact = [binomial_quantile(share, count, passed / count) / count for share in (0.025, 0.975)]
    near = 1 / count + 1e-9
    assert abs(found.low - exact[0]) <= near and abs(found.high - exact[1]) <= near


def test_of_many_videos_it_is_that_of_the_normal_approximation() -> None:
    found = score(rewards(*[[1.0]] * 1200, *[[0.0]] * 800))
    assert found is not None
    reach = 1.96 * math.sqrt(0.6 * 0.4 / 2000)
    assert found.low == pytest.approx(0.6 - reach, abs=2e-3) and found.high == pytest.approx(0.6 + reach, abs=2e-3)


def test_videos_of_one_scene_are_not_taken_for_independent() -> None:
    alone = score(rewards(*[[1.0]] * 12, *[[0.0]] * 8))
    copies = score(rewards(*[[1.0] * 5] * 12, *[[0.0] * 5] * 8))
    assert alone and copies
    assert (copies.mean, copies.low, copies.high) == (alone.mean, alone.low, alone.high)
    assert (copies.scenes, copies.judged) == (20, 100)


def test_the_truth_lies_in_about_95_percent_of_the_intervals() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(80):
        scenes = random.beta(2, 2, size=40)  # scenes are not equally hard; their mean is 0.5
        found = score(rewards(*((random.random(3) < chance).astype(float).tolist() for chance in scenes)))
        assert found is not None
        held += found.low <= 0.5 <= found.high
    assert 70 <= held <= 79


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, None]), max_size=3), max_size=8))
@settings(max_examples=50)
def test_what_is_missing_counts_neither_for_nor_against(scenes: list[list[float | None]]) -> None:
    found = score(rewards(*scenes))
    said = [[reward for reward in scene if reward is not None] for scene in scenes]
    flat = [reward for scene in said for reward in scene]
    if not flat:
        assert found is None
        return
    assert found is not None and found.mean == pytest.approx(sum(flat) / len(flat))
    assert (found.judged, found.missing) == (len(flat), sum(map(len, scenes)) - len(flat))
    assert found.low <= found.mean + 1e-9 and found.high >= found.mean - 1e-9
    without = score(rewards(*filter(None, said)))
    assert without is not None and (without.low, without.high) == (found.low, found.high)


def test_a_difference_goes_scene_by_scene() -> None:
    hard = [[float(number % 2)] for number in range(40)]
    easier = [[1.0] if number < 10 else scene for number, scene in enumerate(hard)]
    found = difference(rewards(*easier), rewards(*hard))
    assert found is not None and found.scenes == 40
    assert found.mean == pytest.approx(5 / 40)
    # Of 40 pairs five differ, by one: the difference drawn anew is Binomial(40, 5/40) / 40.
    exact = [binomial_quantile(share, 40, 5 / 40) / 40 for share in (0.025, 0.975)]
    assert abs(found.low - exact[0]) <= 1 / 40 and abs(found.high - exact[1]) <= 1 / 40
    apart = score(rewards(*hard))
    assert apart is not None and found.high - found.low < apart.high - apart.low


def test_a_difference_is_of_the_scenes_that_both_have() -> None:
    one, other = rewards([1.0], [0.0], [None], [1.0]), rewards([0.0], [None], [1.0])
    found = difference(one, other)
    assert found is not None and (found.mean, found.scenes) == (1.0, 1)
    assert difference(rewards([1.0]), rewards([None])) is None
    back = difference(other, one)
    assert back is not None and (back.mean, back.low, back.high) == (-1.0, -1.0, -1.0)


def test_the_same_verdicts_give_the_same_interval() -> None:
    given_rewards = rewards(*[[float(number % 3 == 0)] for number in range(30)])
    assert score(given_rewards) == score(given_rewards)
