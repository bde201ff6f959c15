"""Whatever stands in a row, the ledger is written, and gives the row back as it was written."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.storage import Storage
from nextscene.common.text import identifier, readable_text, storable_text
from nextscene.curation.ledger import Row, read_ledger, write_ledger
from nextscene.curation.storable_row import storable
from tests.hostile_text import HALF, STEERING, floats, integers, texts

PLANNED: dict[str, Any] = {
    "position": 0,
    "clip_id": "0" * 24,
    "split": "train",
    "unit": 0,
    "shard": 0,
    "source": "a.mp4",
    "start_ms": 0,
    "end_ms": -1,
    "outcome": "kept",
}
PLAIN = Row(**PLANNED, caption="a cat\0 \u202ejumps", codec="AVC", duration=1.5)
COLUMNS = {column.name: {"str": texts, "int": integers, "float": floats}[str(column.type)] for column in fields(Row)}
hostile = st.fixed_dictionaries({}, optional={name: values for name, values in COLUMNS.items() if name not in PLANNED})


def back(folder: Path, *rows: Row) -> list[Row]:
    write_ledger(Storage.at(folder), "ledger.parquet", rows)
    return read_ledger(Storage.at(folder), "ledger.parquet")


@settings(max_examples=150, deadline=None)
@given(values=hostile)
def test_any_row_is_written_and_reads_back_equal_and_its_neighbor_too(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    row = storable(replace(PLAIN, **values))
    assert back(tmp_path_factory.getbasetemp() / "any", PLAIN, row) == [PLAIN, row]
    assert storable(row) == row
    data = {name for name, value in values.items() if getattr(row, name) != value} - {"detail", "outcome", "reason"}
    altered = {column.name for column in fields(Row) if "evidence" in column.metadata}
    assert data <= altered or (row.outcome, row.reason) == ("failed", "unwritable")


def test_data_that_can_be_written_is_left_alone_and_evidence_is_spelled_out() -> None:
    row = storable(replace(PLAIN, detail=STEERING, scene_description=STEERING))
    assert row.scene_description == STEERING and row.caption == PLAIN.caption
    assert row.detail == "\\x1b[31mred\\x1b[0m \u202eback\u202c \r\\x07"


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("caption", HALF, "not Unicode"),
        ("scene_description", "x" * (17 << 20), "17,825,792 bytes"),
        ("source_width", 2**63, "64 bits"),
        ("input_tokens", -(2**70), "64 bits"),
        ("duration", math.inf, "inf"),
        ("duration", math.nan, "nan"),
        ("usd", math.inf, "inf"),
    ],
)
def test_unwritable_data_is_omitted_and_ends_the_clip_with_the_reason(column: str, value: Any, why: str) -> None:
    row = storable(replace(PLAIN, frames=4, mp4_sha256="x", **{column: value}))
    assert (row.outcome, row.reason, row.frames, row.mp4_sha256) == ("failed", "unwritable", -1, "")
    assert column in row.detail and why in row.detail
    assert getattr(row, column) == Row.__dataclass_fields__[column].default


@given(texts, st.integers(60, 200))
def test_evidence_is_cut_to_its_length_with_a_mark_and_then_stays_as_it_is(text: str, longest: int) -> None:
    found = readable_text(text, longest)
    assert len(found) <= longest and readable_text(found, longest) == found
    assert found.encode().decode() == found and not set(found) & set("\0\x1b\x07\x85")
    assert len(text) <= longest or ("cut, of" in found and f"{len(text):,} characters" in found)


@given(texts)
def test_data_of_the_judge_keeps_all_but_what_no_file_can_hold(text: str) -> None:
    found = storable_text(text)
    assert len(found) == len(text) and all(a == b or b == "?" for a, b in zip(text, found, strict=True))
    assert found.encode().decode() == found and "\0" not in found


@given(texts)
def test_a_word_stays_a_word(text: str) -> None:
    assert identifier(text) == identifier(identifier(text)) and len(identifier(text)) <= 64
    assert identifier(text).isascii() and not set(identifier(text)) & set(" \n|<>\x1b")
    assert identifier("frontier_llm") == "frontier_llm"
