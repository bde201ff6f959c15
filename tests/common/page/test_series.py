"""Series in bounded memory: nothing that was added is lost from the sums and the extremes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common.page.series import MAX_BUCKETS, Series

numbers = st.floats(-1e6, 1e6, allow_nan=False)


def series(values: list[float]) -> Series:
    found = Series()
    for step, value in enumerate(values):
        found.add(step, value)
    return found


@given(st.lists(numbers, min_size=1, max_size=8 * MAX_BUCKETS))
def test_buckets_keep_extremes_steps_and_sums(values: list[float]) -> None:
    found = series(values)
    points = found.points()
    assert len(points) <= 2 * MAX_BUCKETS
    assert (min(p.low for p in points), max(p.high for p in points)) == (min(values), max(values))
    assert [p.x for p in points] == sorted({p.x for p in points})
    assert points[-1].x == len(values) - 1
    assert all(p.low - 1e-6 <= p.mean <= p.high + 1e-6 for p in points)
    assert min(values) - 1e-6 <= points[-1].smooth <= max(values) + 1e-6
    assert (found.count, found.last) == (len(values), values[-1])
    assert found.total == pytest.approx(sum(values), abs=1e-3)


def test_a_hundred_thousand_numbers_take_as_little_room_as_a_thousand() -> None:
    assert len(series([float(step % 7) for step in range(100_000)]).points()) <= 2 * MAX_BUCKETS


def test_the_moving_average_is_the_exponential_one_without_its_start() -> None:
    values = [math.sin(step) + step / 50 for step in range(100)]
    decay, average, weight = math.exp(-1 / (100 * 0.025)), 0.0, 0.0
    for value, point in zip(values, series(values).points(), strict=True):
        average, weight = decay * average + (1 - decay) * value, decay * weight + 1 - decay
        assert point.smooth == pytest.approx(average / weight)


def test_a_short_series_is_not_smoothed_and_what_is_not_finite_is_left_out() -> None:
    points = series([1.0, math.nan, 5.0, math.inf, 2.0]).points()
    assert [(p.x, p.smooth) for p in points] == [(0, 1.0), (2, 5.0), (4, 2.0)]
    assert Series().points() == []
