"""A manifest means what it says: types are checked, columns that are mistaken for others are named."""

from __future__ import annotations

import csv
import json
import logging
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.sources import OPEN_END, Clip, Source
from nextscene.curation.sources.columns import likely_column
from nextscene.curation.sources.tables import READERS


def clips(path: Path) -> list[Clip]:
    return list(Source.at(str(path)).clips())


def jsonl(folder: Path, *rows: dict[str, Any] | str) -> Path:
    path = folder / "clips.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def parquet(folder: Path, **columns: Any) -> Path:
    path = folder / "clips.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def mistake(path: Path) -> str:
    with pytest.raises(UsageError) as error:
        clips(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert str(path) in str(error.value)
    return str(error.value)


# ---- types -----------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, Any, tuple[str, ...]]] = [
    ("caption", ["a cat runs", "a dog"], ("a list", "a cat runs", "give one text")),
    ("caption", {"en": "a cat"}, ("an object",)),
    ("caption", 3, ("a number (3)", "write it as text")),
    ("caption", 2.5, ("a number (2.5)",)),
    ("caption", True, ("true, a truth value",)),
    ("video", 7, ("a number (7)",)),
    ("video", ["a.mp4"], ("a list",)),
    ("video", {"path": "a.mp4", "bytes": None}, ("hf-parquet", "write the files out")),
    ("id", 1.0, ("a number (1.0)", "write it as text")),
    ("id", False, ("false, a truth value",)),
    ("id", ["x"], ("a list",)),
    ("start", True, ("true, a truth value", "number of seconds")),
    ("start", [1], ("a list", "number of seconds")),
    ("start", "1_000", ("'1_000'", "number of seconds")),
    ("start", "0x10", ("'0x10'", "number of seconds")),
    ("start", "1,5", ("'1,5'", "number of seconds")),
    ("start", "１", ("number of seconds",)),
    ("start", "infinity", ("number of seconds",)),
    ("end", {"s": 1}, ("an object",)),
]


@pytest.mark.parametrize(("column", "value", "words"), WRONG, ids=lambda value: str(value)[:20])
def test_a_value_of_another_type_is_named_with_row_column_type_and_remedy(
    tmp_path: Path, column: str, value: Any, words: tuple[str, ...]
) -> None:
    said = mistake(jsonl(tmp_path, {"video": "a.mp4"}, {"video": "b.mp4", column: value}))
    assert all(word in said for word in ("line 2", f"{column} ", *words)), said


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("caption", pa.array([b"hello"]), ("bytes (5 bytes)", "decode it")),
        ("caption", pa.array([["a", "b"]]), ("a list",)),
        ("caption", pa.array([datetime(2026, 1, 1)]), ("a datetime",)),
        ("video", pa.array([{"bytes": b"x" * 9999, "path": "a.mp4"}]), ("hf-parquet",)),
        ("video", pa.array([b"x" * 9999]), ("bytes", "hf-parquet")),
        ("start", pa.array([timedelta(seconds=1)]), ("a timedelta", "number of seconds")),
        ("start", pa.array([b"1"]), ("bytes",)),
        ("id", pa.array([b"1"]), ("bytes",)),
    ],
)
def test_what_parquet_holds_is_not_made_text(
    tmp_path: Path, column: str, values: pa.Array, words: tuple[str, ...]
) -> None:
    said = mistake(parquet(tmp_path, **{"video": pa.array(["a.mp4"]), column: values}))
    assert all(word in said for word in ("row 1", f"{column} ", *words)), said


def test_nan_in_parquet_is_no_value_as_null_is_none(tmp_path: Path) -> None:
    """Pandas and numpy spell a missing value so. In provenance it is left out or null, at any depth."""
    nan = float("nan")
    path = parquet(
        tmp_path,
        video=["a.mp4", "b.mp4"],
        caption=pa.array([nan, nan]),
        start=pa.array([nan, 1.5]),
        end=pa.array([2.0, nan]),
        score=pa.array([nan, np.inf]),
        scores=pa.array([[nan, 1.0], [2.0, -np.inf]]),
    )
    first, second = clips(path)
    assert (first.caption, first.start_ms, first.end_ms) == ("", 0, 2000)
    assert (second.caption, second.start_ms, second.end_ms) == ("", 1500, OPEN_END)

    def strict(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(first.provenance, parse_constant=strict) == {"scores": [None, 1.0]}
    assert json.loads(second.provenance, parse_constant=strict) == {"score": "inf", "scores": [2.0, "-inf"]}


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("column", ["caption", "start", "score"])
def test_nan_in_json_lines_is_no_json(tmp_path: Path, column: str, name: str) -> None:
    said = mistake(jsonl(tmp_path, f'{{"video": "a.mp4", "{column}": {name}}}'))
    assert "line 1" in said and "not JSON" in said and name in said and "write null" in said


def test_numbers_and_their_texts_are_seconds_and_whole_ids_their_digits(tmp_path: Path) -> None:
    rows = [
        {"video": "a.mp4", "start": 1, "end": " 2.5 ", "id": 7},
        {"video": "b.mp4", "start": "1e1", "end": 11.25, "id": "7 "},
    ]
    found = clips(jsonl(tmp_path, *rows))
    assert [(clip.start_ms, clip.end_ms, clip.identity) for clip in found] == [(1000, 2500, "7"), (10_000, 11_250, "7")]


def test_provenance_holds_what_json_holds_and_not_files(tmp_path: Path) -> None:
    stamp = datetime(2026, 1, 2, 3)
    path = parquet(tmp_path, video=["a.mp4"], when=[stamp], sha=[b"\x01\xff"])
    assert json.loads(clips(path)[0].provenance) == {"when": "2026-01-02 03:00:00", "sha": "01ff"}
    (large,) = clips(parquet(tmp_path, video=["a.mp4"], thumb=[b"x" * (1 << 20)], when=[stamp]))
    assert (large.flaw, large.provenance) == ("bad_provenance", "")
    assert "row 1" in large.flaw_detail and "the longest is 'thumb'" in large.flaw_detail


def test_what_python_cannot_hold_of_a_parquet_file_is_the_matter_of_its_row(tmp_path: Path) -> None:
    times = pa.array([0, 2**62], pa.timestamp("ms"))
    path = parquet(tmp_path, video=["a.mp4", "b.mp4"], when=times)
    assert [json.loads(clip.provenance)["when"] for clip in clips(path)] == [
        "1970-01-01 00:00:00",
        f"<value out of range: {2**62}>",
    ]
    texts = pa.StringArray.from_buffers(2, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff"))
    path = parquet(
        tmp_path, video=["a.mp4", "b.mp4"], tags=pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), texts)
    )
    first, second = clips(path)
    assert (first.provenance, first.flaw) == ('{"tags": ["a"]}', "")
    assert second.flaw == "bad_provenance" and "row 2" in second.flaw_detail and "not UTF-8" in second.flaw_detail


def test_nanoseconds_are_cut_whatever_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pandas, Arrow would make values of pandas of them; without, it would raise."""
    nested = pa.list_(pa.struct([("at", pa.timestamp("ns"))]))
    columns = {
        "at": pa.array([1_234_567], pa.timestamp("ns")),
        "of": pa.array([1_234_567], pa.time64("ns")),
        "took": pa.array([1_234_567], pa.duration("ns")),
        "all": pa.array([[{"at": 1_234_567}]], nested),
    }
    for has_pandas in (True, False):
        if not has_pandas:
            monkeypatch.setitem(sys.modules, "pandas", None)
        (clip,) = clips(parquet(tmp_path, video=["a.mp4"], **columns))
        assert json.loads(clip.provenance) == {
            "at": "1970-01-01 00:00:00.001234",
            "of": "00:00:00.001234",
            "took": "0:00:00.001234",
            "all": [{"at": "1970-01-01 00:00:00.001234"}],
        }


# ---- columns ---------------------------------------------------------------------------------------------------

MEANT = {
    "start": "Start START start_time start_sec start_s start_seconds start_ms start_frame startTime t_start clip_start"
    " t0 start_timestamp begin begin_time from onset Start_timestamp timestamps span strat",
    "end": "End t1 end_time end_sec end_ms end_frame endTime t_end clip_end stop to until time_end edn",
    "caption": "Caption captions text texts prompt description desc caption_en video_caption long_caption captoin",
}
NOT_MEANT = {
    "start": "start_date start_year restart star stars timestamp duration fps length from_dataset index art",
    "end": "end_date endpoint trend backend send topic total output duration",
    "caption": "title name label caption_model captain context ocr_text url licence location num_captions",
}


@pytest.mark.parametrize("known", sorted(MEANT))
def test_which_names_are_mistaken_for_a_column(known: str) -> None:
    assert [name for name in MEANT[known].split() if not likely_column(known, [name])] == []
    assert [name for name in NOT_MEANT[known].split() if likely_column(known, [name])] == []


@pytest.mark.parametrize("name", [" start", "start ", "Start (sec)", "start-time", "start.time", "\ufeffstart"])
def test_names_are_compared_by_their_words(name: str) -> None:
    assert likely_column("start", ["video", name]) == name


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("column", "known"), [("start_time", "start"), ("Start", "start"), ("end_sec", "end"), ("text", "caption")]
)
def test_a_column_that_would_change_the_clips_is_refused_with_the_remedy(
    tmp_path: Path, kind: str, column: str, known: str
) -> None:
    path = tmp_path / f"clips.{kind}"
    row = {"video": "a.mp4", column: "5"}
    if kind == "csv":
        path.write_text(f"video,{column}\na.mp4,5\n")
    else:
        jsonl(tmp_path, row) if kind == "jsonl" else parquet(tmp_path, **{name: [value] for name, value in row.items()})
    said = mistake(path)
    assert f"'{column}'" in said and f"rename it to `{known}`" in said and "drop it" in said


def test_beside_the_known_column_it_is_provenance(tmp_path: Path) -> None:
    row = {
        "video": "a.mp4",
        "start": 1,
        "end": 2,
        "caption": "it",
        "start_time": 9,
        "End": 8,
        "text": "more",
        "url": "u",
        "duration": 5,
    }
    (clip,) = clips(jsonl(tmp_path, row))
    assert (clip.start_ms, clip.end_ms, clip.caption) == (1000, 2000, "it")
    assert json.loads(clip.provenance) == {"start_time": 9, "End": 8, "text": "more", "url": "u", "duration": 5}


@pytest.mark.parametrize("column", ["duration", "length", "clip_duration", "duration_sec"])
def test_a_length_beside_a_start_without_an_end_is_refused(tmp_path: Path, column: str) -> None:
    said = mistake(jsonl(tmp_path, {"video": "a.mp4", "start": 1, column: 3}))
    assert f"column '{column}' is not known, and `start` has no `end`" in said and "write `end`" in said
    (clip,) = clips(jsonl(tmp_path, {"video": "a.mp4", column: 3}))
    assert clip.provenance == f'{{"{column}": 3}}'


def test_lines_of_json_are_looked_at_each_by_itself(tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "caption": "it"}, {"video": "b.mp4", "caption": None, "text": "x"}]
    assert len(clips(jsonl(tmp_path, *rows))) == 2
    assert "line 3" in mistake(jsonl(tmp_path, *rows, {"video": "c.mp4", "text": "x"}))


@pytest.mark.parametrize("column", ["path", "file_name", "Video", "url", "vidoe", "video_path"])
def test_where_there_is_no_video_the_likely_column_is_named(tmp_path: Path, column: str) -> None:
    said = mistake(jsonl(tmp_path, {column: "a.mp4", "caption": "x"}))
    assert "no column `video`" in said and f"is '{column}' meant" in said


def test_an_id_by_another_spelling_is_hinted_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It changes no clip: clips are then known by their videos, and the column is provenance."""
    with caplog.at_level(logging.WARNING):
        found = clips(jsonl(tmp_path, {"video": "a.mp4", "ID": "x"}, {"video": "b.mp4", "ID": "y", "more": 1}))
    assert [clip.identity for clip in found] == ["a.mp4", "b.mp4"]
    (record,) = caplog.records
    assert "'ID'" in record.getMessage() and "`id`" in record.getMessage()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_name_that_is_given_twice_is_refused_and_an_empty_one_is_no_name(tmp_path: Path, kind: str) -> None:
    path, empty = tmp_path / f"clips.{kind}", tmp_path / "empty.csv"
    if kind == "csv":
        path.write_text("video,caption,caption\na.mp4,x,y\n")
    elif kind == "jsonl":
        jsonl(tmp_path, '{"video": "a.mp4", "caption": "x", "caption": "y"}')
    else:
        columns = [pa.array([text]) for text in ("a.mp4", "x", "y")]
        pq.write_table(pa.table(columns, names=["video", "caption", "caption"]), path)
    assert "'caption' is there twice" in mistake(path)
    empty.write_text("video,,\na.mp4,x,y\n")
    assert len(clips(empty)) == 1


# ---- CSV -------------------------------------------------------------------------------------------------------

TABLE = [["video", "caption", "licence"], ["a.mp4", "one, two; three\tfour", "CC"], ["b.mp4", 'a "quoted"\nline', ""]]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_recognized_from_the_header(tmp_path: Path, separator: str, suffix: str, mark: bytes) -> None:
    path = tmp_path / f"clips.{suffix}"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows(TABLE)
    path.write_bytes(mark + path.read_bytes())
    assert [(clip.name, clip.caption, clip.provenance) for clip in clips(path)] == [
        ("a.mp4", "one, two; three\tfour", '{"licence": "CC"}'),
        ("b.mp4", 'a "quoted"\nline', ""),
    ]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("Video;caption", ("is 'Video' meant", "Video, caption")),
        ("film\tcaption", ("is 'film' meant", "film, caption")),
        ("video|caption", ("no column `video`", "video|caption")),
    ],
)
def test_a_header_without_video_is_told_by_its_likely_columns(
    tmp_path: Path, header: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "clips.csv").write_text(f"{header}\na.mp4;x\n")
    said = mistake(tmp_path / "clips.csv")
    assert all(word in said for word in words), said


def test_a_comma_wins_and_other_separators_are_then_letters(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("video,caption,a;b\na.mp4,x,y;z\n")
    assert json.loads(clips(tmp_path / "clips.csv")[0].provenance) == {"a;b": "y;z"}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_row_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("nextscene.curation.sources.tables.MAX_ROW_CHARACTERS", 1000)
    path = tmp_path / f"clips.{kind}"
    path.write_text('video,caption\na.mp4,"' + "x\n" * 2000 if kind == "csv" else '{"video": "' + "a" * 2000 + '"}')
    said = mistake(path)
    assert "is a quotation mark missing?" in said if kind == "csv" else "line 1" in said


def test_rows_of_many_lines_are_long_each_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextscene.curation.sources.tables.MAX_ROW_CHARACTERS", 100)
    path = tmp_path / "clips.csv"
    path.write_text("video,caption\n" + 'a.mp4,"{}"\n'.format("x\n" * 40) * 20)
    assert len(clips(path)) == 20
    path.write_text("video,caption\n" + 'a.mp4,"{}"\n'.format("x\n" * 50) * 20)
    assert "line 48: the row that ends here or later has more than" in mistake(path)


def test_a_table_whose_first_line_has_no_end_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("video," + "a," * (1 << 20) + "\na.mp4\n")
    assert "line 1: longer than 1 MiB" in mistake(tmp_path / "clips.csv")


def test_a_long_value_that_a_parquet_names_in_every_row_is_held_a_few_times(tmp_path: Path) -> None:
    """Less than a kilobyte, which was 2 GB a moment later."""
    captions = pa.DictionaryArray.from_arrays([0] * 2048, ["x" * (1 << 20)])
    path = tmp_path / "clips.parquet"
    pq.write_table(pa.table({"video": ["a.mp4"] * 2048, "caption": captions}), path, compression="zstd")
    assert path.stat().st_size < 1024
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        rows = sum(len(row["caption"]) == 1 << 20 for _, row in READERS[".parquet"](Storage.at(tmp_path), path.name))
    finally:
        pa.set_memory_pool(before)
    assert rows == 2048 and pool.max_memory() < 200 << 20


def test_a_row_of_a_parquet_may_be_as_long_as_one_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextscene.curation.sources.tables.MAX_ROW_CHARACTERS", 1000)
    path = tmp_path / "clips.parquet"
    pq.write_table(pa.table({"video": ["a.mp4"] * 40, "caption": ["x" * 900] * 39 + ["x" * 1100]}), path)
    assert "row 40: longer than" in mistake(path)
