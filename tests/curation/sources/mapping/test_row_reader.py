"""The values of a row by a layout: texts, spans, crops, keys, and lists taken apart."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common.config_loader import from_tree
from nextscene.curation.sources.cell_values import InvalidValue, WrongType
from nextscene.curation.sources.clip import OPEN_END
from nextscene.curation.sources.mapping.exploded import exploded
from nextscene.curation.sources.mapping.layout import Layout
from nextscene.curation.sources.mapping.row_reader import MappedRow, RowReader


def read(row: dict[str, Any], scenes: bool = False, **rows: Any) -> MappedRow:
    layout = from_tree(Layout, {"table": {"files": ["t"]}, "map": rows}, "test")
    return RowReader(layout, scenes).read({"video": "v.mp4", **row})


# ---- texts -----------------------------------------------------------------------------------------------------


def test_the_first_caption_with_a_text_counts() -> None:
    rows = {"caption": ["long", "cap[0]", "short"]}
    assert read({"long": "L", "cap": ["C"], "short": "S"}, **rows).caption.text == "L"
    assert read({"long": " \n", "cap": ["C"], "short": "S"}, **rows).caption.text == "C"
    assert read({"long": None, "cap": [], "short": "S"}, **rows).caption.text == "S"
    assert read({"cap": []}, **rows).caption.text == ""
    assert read({"long": "\udcff"}, **rows).caption.flaw == "bad_caption"


@pytest.mark.parametrize(
    ("rule", "text"), [("first", "a b"), ("longest", "the longest"), ("join", "a b the longest c")]
)
def test_a_list_of_captions_becomes_one_by_its_rule(rule: str, text: str) -> None:
    row = {"caption": ["", "a b", "the longest", None, "c"]}
    assert read(row, caption_list=rule).caption.text == text
    assert read({"caption": []}, caption_list=rule).caption.text == ""
    assert read({"caption": "['', 'a b', 'the longest', 'c']"}, caption_list=rule).caption.text == text
    assert read({"caption": "[a note] in brackets"}, caption_list=rule).caption.text == "[a note] in brackets"
    with pytest.raises(WrongType, match=r"say in map\.caption_list"):
        read(row)


def test_a_scene_is_read_if_it_is_wanted() -> None:
    assert read({"before": "a scene"}, scene=["before"]).scene.text == ""
    assert read({"before": "a scene"}, scenes=True, scene=["before"]).scene.text == "a scene"


def test_only_what_is_named_is_kept() -> None:
    row = {"a": 1, "b": {"c": "x", "d": 2}, "my column": 3, "left out": 4}
    assert read(row, keep=["a", "b.c", "`my column`"]).provenance == '{"a": 1, "b.c": "x", "my column": 3}'


# ---- spans -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "start", "end", "span"),
    [
        ("seconds", "1.5", 2, (1500, 2000)),
        ("seconds", None, None, (0, OPEN_END)),
        ("seconds", 3, None, (3000, OPEN_END)),
        ("clock", "0:00:01.250", "00:01:02", (1250, 62_000)),
        ("clock", "1:02:03,5", "2:00:00.001", (3_723_500, 7_200_001)),
        ("clock", "90:00", "5401.5", (5_400_000, 5_401_500)),
        ("clock", "2.5", 7, (2500, 7000)),
    ],
)
def test_a_span_is_read_in_its_unit(unit: str, start: Any, end: Any, span: tuple[int, int]) -> None:
    row = read({"s": start, "e": end}, span=["s", "e"], span_unit=unit)
    assert (row.start_ms, row.end_ms) == span
    if start is not None and end is not None:
        one = read({"both": [start, end]}, span=["both"], span_unit=unit)
        assert (one.start_ms, one.end_ms) == span


@given(
    st.sampled_from([*map(Fraction, (1, 2, 5, 10, 24, 25, 30)), Fraction(24000, 1001), Fraction(30000, 1001)]),
    st.integers(0, 200_000),
    st.integers(1, 500),
    st.integers(2, 6),
)
def test_a_span_of_frames_begins_with_its_frame(fps: Fraction, first: int, count: int, digits: int) -> None:
    """The frame shown at the start is the first one, and none after the last is shown before the end.

    The rate is given as data sets give it, rounded to some digits: `23.98` stands for 24000/1001.
    """
    row = read(
        {"cut": [first, first + count], "fps": round(float(fps), digits)}, span=["cut"], span_unit="frames", fps="fps"
    )
    assert Fraction(row.start_ms, 1000) * fps // 1 == first
    assert (Fraction(row.end_ms, 1000) * fps) <= first + count
    assert row.end_ms - row.start_ms >= count * 1000 / fps - 2


@pytest.mark.parametrize(
    ("rows", "row", "error"),
    [
        ({"span": ["s", "e"]}, {"s": 2, "e": 2}, InvalidValue),
        ({"span": ["s", "e"]}, {"s": "0:01", "e": "0:02"}, WrongType),
        ({"span": ["s", "e"], "span_unit": "clock"}, {"s": "1:61:00", "e": "1:62:00"}, InvalidValue),
        ({"span": ["s"]}, {"s": [1, 2, 3]}, WrongType),
        ({"span": ["s"], "span_unit": "frames", "fps": "fps"}, {"s": [0, 5], "fps": 0}, InvalidValue),
        ({"span": ["s"], "span_unit": "frames", "fps": "fps"}, {"s": [0, 5]}, WrongType),
        ({"span": ["s"], "span_unit": "frames", "fps": "24"}, {"s": ["x", 5]}, WrongType),
        ({"span": ["s"], "span_unit": "frames", "fps": "24"}, {"s": [-5, 5]}, InvalidValue),
        ({"crop": ["c"]}, {"c": [5, 5, 5, 9]}, InvalidValue),
        ({"crop": ["c"]}, {"c": [-1, 0, 5, 9]}, InvalidValue),
        ({"crop": ["c"]}, {"c": [1, 2, 3]}, WrongType),
        ({"crop": ["c"]}, {"c": ["a", 2, 3, 4]}, WrongType),
        ({"crop": ["c"]}, {"c": [0, 0, float("inf"), 4]}, WrongType),
        ({"order": "n"}, {"n": "first"}, InvalidValue),
        ({"video": "{name}"}, {}, InvalidValue),
        ({"id": "{key}"}, {"key": ["k"]}, WrongType),
        ({"video": "{name}"}, {"name": "a\0b"}, InvalidValue),
        ({"keep": ["deep"]}, {"deep": "\udcff"}, InvalidValue),
    ],
)
def test_a_row_that_cannot_be_used_is_an_error(
    rows: dict[str, Any], row: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        read(row, **rows)


# ---- crops and lists -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "values"), [("xyxy", [10, 20, 110, 70]), ("xxyy", [10, 110, 20, 70]), ("xywh", ["10", 20.2, 100, "50"])]
)
def test_a_crop_is_read_in_its_order(order: str, values: list[Any]) -> None:
    assert read({"c": values}, crop=["c"], crop_order=order).crop == "10,20,100,50"
    named = dict(zip("abcd", values, strict=True))
    assert read(named, crop=["a", "b", "c", "d"], crop_order=order).crop == "10,20,100,50"
    assert read({}, crop=["c"], crop_order=order).crop == ""


def test_lists_are_taken_apart_element_by_element() -> None:
    row = {"video": "v", "caption": "['a', 'b']", "times": [["0:01", "0:02"], ["0:03", "0:04"]], "fps": 24}
    assert [*exploded(row, ["caption", "times"])] == [
        {"video": "v", "caption": "a", "times": ["0:01", "0:02"], "fps": 24},
        {"video": "v", "caption": "b", "times": ["0:03", "0:04"], "fps": 24},
    ]
    assert [*exploded(row, [])] == [row]
    assert [*exploded({"caption": None, "times": ""}, ["caption", "times"])] == []
    with pytest.raises(InvalidValue, match="different lengths: caption 2, times 1"):
        [*exploded({**row, "times": [[1, 2]]}, ["caption", "times"])]
    with pytest.raises(WrongType, match="fps is 24, not a list"):
        [*exploded(row, ["fps"])]
