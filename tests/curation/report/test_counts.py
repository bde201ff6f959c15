"""What is counted is what the ledger's columns say, however they are read."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common.errors import DamagedRecord
from nextscene.curation.ledger import SCHEMA, Row
from nextscene.curation.outcome import OUTCOMES
from nextscene.curation.report.counts import MAX_WORDS, Counts, word_count
from tests.curation.report.pages import row

outcomes = st.sampled_from(
    [("kept", "Pass"), ("dropped", "Fail"), ("failed", "Pass"), ("rejected", ""), ("refused", "")]
)


@st.composite
def ledgers(draw: st.DrawFn) -> list[Row]:
    numbers = range(draw(st.integers(0, 30)))
    return [draw(rows(number)) for number in numbers]


@st.composite
def rows(draw: st.DrawFn, number: int) -> Row:
    outcome, verdict = draw(outcomes)
    small = st.integers(0, 9)
    return row(
        number,
        outcome,
        draw(st.sampled_from(["", "a", "b"])),
        verdict=verdict,
        rounds=draw(small) + 1 if verdict else 0,
        split=draw(st.sampled_from(["train", "test"])),
        source=draw(st.sampled_from(["a.mp4", "b.mp4", "c.mp4"])),
        frames=draw(st.integers(1, 81)) if outcome == "kept" else -1,
        source_width=draw(st.sampled_from([-1, 640, 1280])),
        source_height=480,
        caption=" ".join("w" * draw(small)),
        scene_description=" ".join("w" * draw(small)),
        judge_model=draw(st.sampled_from(["one", "two"])) if verdict else "",
        input_tokens=draw(small),
        output_tokens=draw(small),
        usd=draw(small) / 8,
    )


def counted(values: list[Row], *columns: str) -> dict[tuple[object, ...], int]:
    """The same count by Arrow."""
    arrays = [pa.array([getattr(value, name) for value in values], SCHEMA.field(name).type) for name in columns]
    grouped = pa.table(arrays, names=list(columns)).group_by(list(columns)).aggregate([([], "count_all")])
    return {tuple(line[name] for name in columns): line["count_all"] for line in grouped.to_pylist()}


@given(ledgers(), st.integers(1, 7))
def test_every_count_is_that_of_arrow_over_the_same_rows_in_files_of_any_size(values: list[Row], size: int) -> None:
    counts = Counts()
    for begin in range(0, len(values), size):
        counts.add(values[begin : begin + size])
    kept = [value for value in values if value.kept]
    passed = [value for value in values if value.verdict == "Pass"]
    judged = [value for value in values if value.verdict]
    assert counts.tally.by_reason == counted(values, "outcome", "reason")
    assert counts.decided == len(values)
    assert {(key,): n for key, n in counts.kept_by_split.items()} == counted(kept, "split")
    assert {(key,): n for key, n in counts.frames.items()} == counted(kept, "frames")
    assert {(key,): n for key, n in counts.passed_in.items()} == counted(passed, "rounds")
    assert {(key,): n for key, n in counts.models.items()} == counted(judged, "judge_model")
    assert counts.sources == len(counted(values, "source"))
    assert counts.kept_frames == sum(value.frames for value in kept)
    assert counts.usd == sum(value.usd for value in values)
    assert (counts.input_tokens, counts.output_tokens) == (
        sum(value.input_tokens for value in values),
        sum(value.output_tokens for value in values),
    )


@given(ledgers())
def test_each_kept_clip_stands_once_in_each_distribution(values: list[Row]) -> None:
    counts = Counts()
    counts.add(values)
    assert counts.frames.total() == counts.caption_words.total() == counts.kept
    assert counts.scene_words.total() == sum(bool(value.kept and value.scene_description) for value in values)
    assert counts.short_sides.total() == sum(value.source_width > 0 for value in values)


def test_a_long_text_counts_as_the_longest_that_is_told_apart() -> None:
    assert word_count("a  b\nc\u3000d ") == 4
    assert word_count("") == 0
    assert word_count("word " * (MAX_WORDS + 1)) == MAX_WORDS


def test_an_end_that_no_clip_can_have_is_named() -> None:
    counts = Counts()
    counts.add([row(1, outcome) for outcome in OUTCOMES])
    with pytest.raises(DamagedRecord, match=r"ends clip 0+63 in 'lost'"):
        counts.add([replace(row(2, "lost"), clip_id=f"{99:024x}")])
