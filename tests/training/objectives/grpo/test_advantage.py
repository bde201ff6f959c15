"""Which candidates of a group are learned from, and how much each was better or worse."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nextscene.training.objectives.grpo.advantage import (
    advantages,
    select_best_and_worst,
    select_timesteps,
    standard_deviation,
)

rewards = st.lists(st.none() | st.sampled_from([0.0, 1.0]) | st.floats(-5, 5), min_size=2, max_size=30)


def lot(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("passes", [1, 6, 12, 23])
def test_the_advantages_of_passes_and_fails_have_their_closed_form(passes: int) -> None:
    group = [1.0] * passes + [0.0] * (24 - passes)
    share, unbiased = passes / 24, math.sqrt(23 / 24)
    found = advantages(group, "group", 0.0)
    assert found[0] == pytest.approx(math.sqrt((1 - share) / share) * unbiased, rel=1e-6)
    assert found[-1] == pytest.approx(-math.sqrt(share / (1 - share)) * unbiased, rel=1e-6)


@given(rewards)
def test_they_add_up_to_nothing_and_have_one_deviation(group: list[float | None]) -> None:
    found = [value for value in advantages(group, "group", 0.0) if value is not None]
    assert sum(found) == pytest.approx(0, abs=1e-6)
    spread = standard_deviation([reward for reward in group if reward is not None])
    if spread > 1e-3:
        assert standard_deviation(found) == pytest.approx(1, rel=1e-4)
    elif spread == 0:
        assert set(found) <= {0.0}


def test_another_unit_is_taken_where_it_is_asked_for() -> None:
    assert advantages([1.0, 0.0], "none", 9.0) == [0.5, -0.5]
    assert advantages([1.0, 0.0], "step", 0.25) == pytest.approx([2.0, -2.0])


@given(rewards, st.integers(0, 2))
def test_a_missing_judgment_is_as_if_the_candidate_had_not_been_made(group: list[float | None], more: int) -> None:
    without = advantages([reward for reward in group if reward is not None], "group", 0.0)
    found = advantages([*group, *[None] * more], "group", 0.0)
    assert [value for value in found if value is not None] == without
    assert [value is None for value in found] == [reward is None for reward in [*group, *[None] * more]]


@given(rewards, st.integers(1, 6).map(lambda half: 2 * half), st.integers(0, 99))
def test_the_best_and_the_worst_are_kept(group: list[float | None], keep: int, seed: int) -> None:
    found = advantages(group, "none", 0.0)
    kept = select_best_and_worst(found, keep, lot(seed))
    judged = sorted(value for value in found if value is not None)
    expected = judged if len(judged) <= keep else judged[: keep // 2] + judged[-(keep // 2) :]
    assert len(kept) == keep
    assert sorted(one.advantage for one in kept[: len(expected)]) == expected
    numbers = [one.number for one in kept[: len(expected)]]
    assert len(set(numbers)) == len(numbers)
    assert all(found[one.number] == one.advantage for one in kept[: len(expected)])
    assert all(one.advantage == 0 for one in kept[len(expected) :])


def test_few_passes_are_all_kept_with_fails_beside_them() -> None:
    """Two of 24 passed: of the best four two failed, and they are told so."""
    kept = select_best_and_worst(advantages([0.0] * 11 + [1.0, 1.0] + [0.0] * 11, "group", 0.0), 8, lot())
    assert {one.number for one in kept if one.advantage > 0} == {11, 12}
    assert sum(one.advantage < 0 for one in kept) == 6


def test_equal_ones_are_taken_by_a_fair_lot_that_can_be_drawn_again() -> None:
    found = advantages([1.0] * 8 + [0.0] * 8, "group", 0.0)
    draws = [select_best_and_worst(found, 4, lot(seed)) for seed in range(2000)]
    assert draws[:50] == [select_best_and_worst(found, 4, lot(seed)) for seed in range(50)]
    counts = Counter(one.number for kept in draws for one in kept)
    # Each is kept with probability 1/4: 500 ± 19.4 of 2,000 times.
    assert all(abs(counts[number] - 500) < 5 * 19.4 for number in range(16))


def test_of_a_group_without_spread_nothing_counts() -> None:
    kept = select_best_and_worst(advantages([1.0] * 12, "group", 0.0), 8, lot())
    assert [one.advantage for one in kept] == [0.0] * 8
    assert len({one.number for one in kept}) == 8


def test_with_none_judged_the_work_is_the_same_and_counts_nothing() -> None:
    assert select_best_and_worst([None] * 5, 4, lot()) == [(0, 0.0, 0.0)] * 4


@given(st.integers(1, 60), st.floats(0.01, 1), st.integers(0, 99))
def test_a_fraction_of_the_steps_is_drawn(noisy: int, fraction: float, seed: int) -> None:
    steps = select_timesteps(noisy, fraction, lot(seed))
    assert len(steps) == len(set(steps)) == max(1, round(fraction * noisy))
    assert set(steps) <= set(range(noisy))


def test_the_paper_s_twenty_steps_leave_eleven() -> None:
    assert len(select_timesteps(19, 0.6, lot())) == 11
    assert select_timesteps(19, 0.6, lot(1)) != select_timesteps(19, 0.6, lot(2))
