"""Which groups are learned from, and who does how much of it."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from nextscene.training.model.grid import Grid
from nextscene.training.model.language import TokenBatch
from nextscene.training.objectives.grpo.advantage import Selected
from nextscene.training.objectives.grpo.dealing import Lesson, choose, deal

KEPT = [Selected(number, 1.0) for number in (5, 2, 0, 3)]
TOKENS = TokenBatch(torch.zeros(2, 1), torch.ones(2, 1))


def lesson(owner: int, place: int, draw: tuple[int, int], has_spread: bool = True, steps: int = 3) -> Lesson:
    fps = torch.full((1,), 16.0)
    return Lesson(owner, place, draw, has_spread, TOKENS, Grid(1, 1, 1), fps, 8, [1.0], KEPT, list(range(steps)))


@given(st.integers(1, 7), st.sampled_from([1, 2, 4]), st.integers(1, 9), st.integers(1, 4))
def test_each_step_of_each_candidate_is_dealt_once_and_all_ranks_do_as_much(
    lessons: int, batch: int, world: int, steps: int
) -> None:
    taught = [lesson(number % world, number, (0, number), steps=steps) for number in range(lessons)]
    dealt = deal(taught, batch, world)
    assert len(dealt) == world and len({len(terms) for terms in dealt}) == 1
    real = [term for terms in dealt for term in terms if not term.is_filler]
    done = [(term.lesson, one.number, term.step) for term in real for one in term.kept]
    expected = {(number, one.number, step) for number in range(lessons) for one in KEPT for step in range(steps)}
    assert len(done) == len(expected) and set(done) == expected
    assert len(dealt[0]) == -(-len(real) // world)
    assert all(before.lesson <= after.lesson for before, after in pairwise(real)), "runs, so that few texts are read"


def test_where_all_groups_teach_each_rank_learns_from_its_own() -> None:
    taught = choose([lesson(owner, place, (0, 7 * owner - place)) for place in (0, 1) for owner in range(3)], 6, False)
    for rank, terms in enumerate(deal(taught, 2, 3)):
        assert {taught[term.lesson].owner for term in terms} == {rank}
        assert not any(term.is_filler for term in terms)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 99), st.booleans()), min_size=1, unique_by=lambda one: one[:2]
    ),
    st.integers(1, 4),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_the_first_groups_with_spread_are_chosen_whoever_has_them(
    drawn: list[tuple[int, int, bool]], count: int, world: int, random: object
) -> None:
    def chosen(with_flat: bool, order: list[tuple[int, int, bool]]) -> list[tuple[int, int]]:
        groups = [lesson(place % world, place // world, one[:2], one[2]) for place, one in enumerate(order)]
        return sorted(each.draw for each in choose(groups, count, with_flat))

    shuffled = list(drawn)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    spread, flat = (sorted(one[:2] for one in drawn if one[2] is wanted) for wanted in (True, False))
    assert chosen(False, drawn) == chosen(False, shuffled) == spread[:count]
    assert chosen(True, drawn) == chosen(True, shuffled) == sorted((spread + flat)[:count])
