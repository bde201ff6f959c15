"""Paths into rows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.curation.sources.cell_values import WrongType
from nextscene.curation.sources.mapping.row_path import RowPath, list_of

ROW: dict[str, Any] = {
    "caption": "words",
    "aesthetic score": 5.5,
    "a.b": 1,
    "metadata": {"fps": 24.0, "cap": ["one", "two"], "empty": None, "my key": 3},
    "windows": [{"caption": "w1"}, {"caption": "w2"}, {}],
    "as_text": "['it''s', \"a\"]",
    "as_json": '[["0:01", "0:02"], ["0:03", "0:04"]]',
    "nan": float("nan"),
    "none": "",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("caption", "words"),
        ("`aesthetic score`", 5.5),
        ("`a.b`", 1),
        ("metadata.fps", 24.0),
        ("metadata.`my key`", 3),
        ("metadata.cap[0]", "one"),
        ("metadata.cap[7]", None),
        ("metadata.empty.more", None),
        ("metadata.missing", None),
        ("windows[].caption", ["w1", "w2", None]),
        ("windows[1].caption", "w2"),
        ("as_text[1]", "a"),
        ("as_json[1][0]", "0:03"),
        ("missing[0].more", None),
        ("nan", None),
        ("none", ""),
    ],
)
def test_a_path_leads_to_its_value(path: str, value: Any) -> None:
    assert RowPath.parse(path).of(ROW) == value


@pytest.mark.parametrize("path", ["caption.more", "caption[0]", "metadata[0]", "`aesthetic score`[]"])
def test_a_step_that_a_value_does_not_have_is_an_error(path: str) -> None:
    with pytest.raises(WrongType):
        RowPath.parse(path).of(ROW)


@pytest.mark.parametrize("text", ["", ".", "a.", "a..b", "[0]", "a[", "a[x]", "a b", "a[-1]", "``", "`a", "1a", "a]"])
def test_other_texts_are_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a path into a row, such as caption, metadata\.fps"):
        RowPath.parse(text)


@given(st.lists(st.one_of(st.text(), st.integers(), st.none(), st.lists(st.text(), max_size=2)), max_size=5))
def test_a_list_as_python_or_json_writes_it_reads_back(values: list[Any]) -> None:
    assert list_of(repr(values)) == values


def test_a_text_that_would_nest_too_deep_is_an_error() -> None:
    with pytest.raises(WrongType, match="not a list"):
        list_of("[" * 100_000)
