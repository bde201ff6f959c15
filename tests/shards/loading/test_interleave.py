"""Turns: a pure function of the place, counted exactly, in proportion to the weights."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.shards.loading.interleave import WeightedInterleave
from nextscene.shards.loading.shuffle import GOLDEN

weights = st.lists(st.one_of(st.integers(1, 10**6), st.floats(1e-3, 1e3)), min_size=1, max_size=5).map(tuple)


def by_hand(weights: tuple[float, ...], place: int) -> int:
    """Where the fraction of place × golden ratio falls among the shares, in rational numbers."""
    fraction = Fraction(place * GOLDEN % 2**64, 2**64)
    total = sum(map(Fraction, weights))
    ends = [end / total for end in accumulate(map(Fraction, weights))]
    return next(taker for taker, end in enumerate(ends) if fraction < end)


@given(weights, st.integers(0, 200))
def test_a_turn_is_the_takers_on_whose_share_it_falls_and_each_counts_its_own(
    weights: tuple[float, ...], length: int
) -> None:
    turns, had = WeightedInterleave(weights), [0] * len(weights)
    for place in range(length):
        taker, before = turns.at(place)
        assert (taker, before) == (by_hand(weights, place), had[taker])
        had[taker] += 1


@given(weights, st.integers(0, 2**40), st.integers(1, 300))
def test_counting_may_begin_anywhere(weights: tuple[float, ...], place: int, length: int) -> None:
    turns = WeightedInterleave(weights)
    seen: dict[int, int] = {}
    for taker, before in map(turns.at, range(place, place + length)):
        assert before == seen.get(taker, before)
        seen[taker] = before + 1


@given(weights, st.integers(0, 1000))
def test_any_stretch_of_turns_is_in_proportion(weights: tuple[float, ...], begin: int) -> None:
    turns, had, total = WeightedInterleave(weights), [0] * len(weights), math.fsum(weights)
    for place in range(begin, begin + 100):
        had[turns.at(place)[0]] += 1
    assert all(abs(count - 100 * weight / total) <= 3 for count, weight in zip(had, weights, strict=True))


@given(weights, st.integers(0, 10**6))
def test_the_shares_of_a_long_run_are_right_to_a_few_turns(weights: tuple[float, ...], place: int) -> None:
    turns, total = WeightedInterleave(weights), math.fsum(weights)
    taker, before = turns.at(place)
    assert abs(before - place * weights[taker] / total) <= 7


@pytest.mark.parametrize("world", [2, 3, 4, 5, 8, 64])
def test_the_ranks_of_no_world_are_tied_to_one_taker(world: int) -> None:
    """As they would be if two takers of one weight simply alternated."""
    turns = WeightedInterleave((1, 1))
    for rank in range(world):
        first = sum(turns.at(place)[0] == 0 for place in range(rank, 200 * world, world))
        assert 85 <= first <= 115


def test_the_turns_are_the_same_on_every_machine_and_with_every_version() -> None:
    """Pinned: other turns would resume a run on other samples."""
    assert [WeightedInterleave((3, 1, 2.5)).at(place)[0] for place in range(24)] == PINNED


PINNED = [0, 2, 0, 2, 1, 0, 2, 0, 2, 1, 0, 2, 0, 0, 2, 0, 2, 1, 0, 2, 0, 2, 1, 0]


@pytest.mark.parametrize("bad", [(), (1, 0), (1, -1), (math.nan,), (1, math.inf), (1.0, 1e-300)])
def test_weights_that_give_no_turns_are_refused(bad: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="weights"):
        WeightedInterleave(bad)
