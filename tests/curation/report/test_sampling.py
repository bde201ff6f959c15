"""Which clips are shown: some of every reason, the same ones whatever the order, and no split before another."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from nextscene.curation.ledger import Row
from nextscene.curation.plan_writer import _split
from nextscene.curation.report.sampling import SampledClip, Sampler, allocate
from tests.curation.report.pages import row

sizes = st.dictionaries(st.tuples(st.sampled_from("abc"), st.text("xyz", max_size=3)), st.integers(1, 5000))
most = st.integers(1, 300)


@given(sizes, most)
def test_all_places_are_given_or_everything_is_shown(counts: dict[tuple[str, str], int], most: int) -> None:
    seats = allocate(counts, most)
    assert sum(seats.values()) == min(most, sum(counts.values()))
    assert all(1 <= seats[stratum] <= counts[stratum] for stratum in seats)


@given(sizes, most)
def test_no_reason_is_left_out_while_there_are_places(counts: dict[tuple[str, str], int], most: int) -> None:
    seats = allocate(counts, most)
    assert len(seats) == min(most, len(counts))


@given(sizes, most)
def test_what_is_more_frequent_is_not_shown_less(counts: dict[tuple[str, str], int], most: int) -> None:
    seats = allocate(counts, most)
    by_size = sorted(counts, key=lambda stratum: counts[stratum])
    for smaller, larger in pairwise(by_size):
        if counts[smaller] < counts[larger]:
            assert seats.get(smaller, 0) <= seats.get(larger, 0)


def draw(rows: list[Row], most: int, file_rows: int = 100) -> list[SampledClip]:
    sampler = Sampler(most)
    for begin in range(0, len(rows), file_rows):
        sampler.add(rows[begin : begin + file_rows])
    return sampler.sampled()


@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(1, 90))
def test_the_sample_depends_on_the_clips_and_not_on_their_order_or_files(
    lots: random.Random, most: int, file_rows: int
) -> None:
    rows = [row(number, "kept" if number % 3 else "rejected", "" if number % 3 else "too_low") for number in range(80)]
    shuffled = lots.sample(rows, len(rows))
    assert draw(rows, most) == draw(shuffled, most, file_rows)
    assert len(draw(rows, most)) == min(most, len(rows))


def test_a_rare_reason_among_many_clips_is_shown() -> None:
    rows = [row(number) for number in range(5000)] + [row(5000, "failed", "cut_error")]
    assert rows[-1].clip_id in {pick.clip_id for pick in draw(rows, 240)}


def test_splits_are_sampled_in_proportion_though_both_draws_hash_the_id() -> None:
    rows = [row(number) for number in range(4000)]
    split = {value.clip_id: _split(value.clip_id, 0.1) for value in rows}
    shown = Counter(split[pick.clip_id] for pick in draw(rows, 240))
    assert 240 * 0.04 < shown["test"] < 240 * 0.2
