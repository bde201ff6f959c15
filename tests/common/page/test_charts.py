"""Line charts: what is drawn is where its numbers are, and text from elsewhere stays text."""

from __future__ import annotations

import itertools
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser, LexborNode

from nextscene.common.page.charts import MAX_LINES, Chart, Line, _ticks, line_chart, number
from nextscene.common.page.series import Point


def line(name: str, *values: float, smoothed: bool = False) -> Line:
    return Line(name, [Point(x, value, value, value, value) for x, value in enumerate(values)], smoothed)


def svg(chart: Chart | None) -> LexborNode:
    assert chart
    (node,) = LexborHTMLParser(str(chart.svg)).css("svg")
    return node


def curve(chart: Chart | None) -> list[tuple[float, float]]:
    (path,) = svg(chart).css("path.curve")
    return [tuple(map(float, pair.split())) for pair in (path.attributes["d"] or "").removeprefix("M").split("L")]  # type: ignore[misc]


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 6))
def test_ticks_are_few_round_and_enclose_the_range(low: float, length: float, count: int) -> None:
    high = low + length
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    ticks = _ticks(low, high, count)
    slack = 1e-6 * (high - low) + 1e-9 * max(abs(low), abs(high))
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 2 * count + 3


def test_a_line_is_drawn_from_left_to_right_and_its_highest_number_highest() -> None:
    places = curve(line_chart("a", "A", [line("x", 1.0, 3.0, 2.0)]))
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert sorted(range(3), key=lambda place: places[place][1]) == [1, 2, 0]


def test_the_numbers_are_in_the_chart_for_the_pointer() -> None:
    data = json.loads(svg(line_chart("a", "A", [line("x", 1.25, 3.5), line("y", 7.0)])).attributes["data-lines"] or "")
    assert data == [
        {"name": "x", "at": [[0, 1.25, 1.25, 1.25], [1, 3.5, 3.5, 3.5]]},
        {"name": "y", "at": [[0, 7.0, 7.0, 7.0]]},
    ]


def test_a_single_number_far_away_does_not_flatten_the_rest() -> None:
    points = [Point(x, 1.0, 0.9, 500.0 if x == 50 else 1.1, 1.0) for x in range(100)]
    texts = [node.text() for node in svg(line_chart("a", "A", [Line("x", points)])).css("text")]
    assert max(float(text.replace(",", "")) for text in texts if not re.fullmatch(r"\d\d+", text)) < 5


def test_numbers_over_orders_of_magnitude_get_a_logarithmic_axis_if_they_may() -> None:
    values = [10.0**-power for power in range(6)]
    places = [y for _, y in curve(line_chart("a", "A", [line("x", *values)], may_be_log=True))]
    steps = [later - earlier for earlier, later in itertools.pairwise(places)]
    assert max(steps) - min(steps) < 0.2
    assert "log" not in str(svg(line_chart("a", "A", [line("x", 0.0, *values)], may_be_log=True)))


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-12, 1e12])
def test_a_constant_line_is_drawn_too(value: float) -> None:
    assert all(math.isfinite(y) for _, y in curve(line_chart("a", "A", [line("x", value, value)])))


def test_raw_numbers_are_drawn_faintly_behind_a_moving_average() -> None:
    points = [Point(x, x % 2, x % 2, x % 2, 0.5) for x in range(10)]
    chart = svg(line_chart("a", "A", [Line("x", points)]))
    assert [node.attributes["class"] for node in chart.css("path")] == ["raw s0", "curve s0"]
    assert svg(line_chart("a", "A", [Line("x", points, smoothed=False)])).css("path.raw") == []


def test_names_are_text_and_lines_are_few() -> None:
    hostile = '"><script>alert(1)</script>'
    chart = line_chart("a", hostile, [line(hostile, 1.0)] * 9, x_name=hostile)
    assert LexborHTMLParser(str(chart and chart.svg)).css("script") == []
    assert chart and len(chart.lines) == MAX_LINES
    assert line_chart("a", "A", [line("x")]) is None


def test_numbers_are_spelled_shortly() -> None:
    spelled = [number(value) for value in (0.0, 0.25, 1200.0, 20_000.0, 1.5e6, 2e-6, -0.5, 100_000.0)]
    assert spelled == ["0", "0.25", "1,200", "20k", "1.5M", "2e-06", "-0.5", "100k"]
