"""Templates of names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.curation.sources.mapping.template import Template

ROW = {"path": "clips/part_1/a.b.mp4", "n": 7, "empty": "", "key": "v_segment1_step2", "x y": "z", "list": ["q"]}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{path}", "clips/part_1/a.b.mp4"),
        ("{path|basename}", "a.b.mp4"),
        ("{path|stem}", "a.b"),
        ("{path|without:clips/}", "part_1/a.b.mp4"),
        ("{path|without:other/}", "clips/part_1/a.b.mp4"),
        ("{key|before:_segment}.mp4", "v.mp4"),
        ("{key|before:_none}", "v_segment1_step2"),
        (r"{key|match:^(\w+?)_(?:segment|part)}", "v"),
        (r"{key|match:(never)}", "v_segment1_step2"),
        ("{path|basename|before:.}", "a"),
        ("{n}/{`x y`}-{list[0]}", "7/z-q"),
        ("{{{n}}}", "{7}"),
        ("fixed", "fixed"),
        ("{n}{empty}", ""),
        ("{missing}.mp4", ""),
    ],
)
def test_a_template_gives_its_text(template: str, text: str) -> None:
    assert Template.parse(template, "map.video").of(ROW) == text


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{", "single {"),
        ("a}", "single }"),
        ("{path|upper}", "no filter 'upper'; there are basename, stem, before:TEXT"),
        ("{path|before}", "no filter 'before'"),
        ("{path|stem:x}", "no filter 'stem:x'"),
        ("{path|match:a}", "needs one group"),
        ("{path|match:(}", "map.id"),
        ("{}", "is not a path into a row"),
        ("{a b}", "is not a path into a row"),
    ],
)
def test_a_wrong_template_is_refused_with_the_reason(template: str, why: str) -> None:
    with pytest.raises(ValueError) as error:
        Template.parse(template, "map.id")
    assert why in str(error.value) and str(error.value).startswith("map.id")


def test_columns_are_those_that_it_reads() -> None:
    assert Template.parse("{a.b}/{`x y`}{{c}}", "map.video").columns == {"a", "x y"}


@given(st.text())
def test_a_text_with_doubled_braces_is_itself(text: str) -> None:
    assert Template.parse(text.replace("{", "{{").replace("}", "}}"), "map.video").of({}) == text
