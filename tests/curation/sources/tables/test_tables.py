"""Tables of every kind give the rows that were written, one bad row is one item, and damage is one message."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.sources.tables import TABLE_SUFFIXES, BadRow, rows_of

MOST = "nextscene.curation.sources.tables.MAX_ROW_CHARACTERS"
Rows = list[dict[str, Any]]


def read(folder: Path, name: str, data: bytes | str) -> list[Any]:
    """Return each row, or the reason of each bad row with its name."""
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    rows = rows_of(Storage.at(folder), name)
    return [f"{row.name}: {row.reason}" if isinstance(row, BadRow) else row[1] for row in rows]


def mistake(folder: Path, name: str, data: bytes | str) -> str:
    with pytest.raises(UsageError) as error:
        read(folder, name, data)
    said = str(error.value)
    assert said.startswith(f"{folder}/{name}") and "\n" not in said and len(said) < 400
    return said


# ---- what was written ------------------------------------------------------------------------------------------


def written(rows: Rows, suffix: str) -> bytes:
    """Return a table as the standard library and Arrow write it."""
    plain = suffix.removesuffix(".gz")
    text = io.StringIO(newline="")
    if plain == ".parquet":
        data = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), data)
        return data.getvalue()
    if plain == ".json":
        json.dump(rows, text, ensure_ascii=len(rows) % 2 == 0, indent=len(rows) % 3 or None)
    elif plain == ".jsonl":
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if plain == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    data_of_text = text.getvalue().encode()
    return gzip.compress(data_of_text) if suffix.endswith(".gz") else data_of_text


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), max_size=12)
NAMES = st.lists(st.text("abcé_", min_size=1, max_size=4), min_size=1, max_size=4, unique=True)
VALUES = st.one_of(
    TEXTS, st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
)
"""Values of JSON. A column of a CSV has texts only, and one of a Parquet has one type."""


def tables(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Rows]:
    return NAMES.flatmap(
        lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, values)), min_size=1, max_size=6)
    )


OF_TEXTS = [suffix for suffix in TABLE_SUFFIXES if suffix.startswith((".csv", ".tsv", ".parquet"))]
OF_JSON = [suffix for suffix in TABLE_SUFFIXES if suffix.startswith(".json")]
each_example = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
@each_example
@given(tables(TEXTS))
def test_a_table_of_texts_reads_back(tmp_path: Path, suffix: str, rows: Rows) -> None:
    assert read(tmp_path, f"Clips{suffix.upper()}", written(rows, suffix)) == rows


@pytest.mark.parametrize("suffix", OF_JSON)
@each_example
@given(
    tables(st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)))
)
def test_a_table_of_any_values_reads_back(tmp_path: Path, suffix: str, rows: Rows) -> None:
    found = read(tmp_path, f"clips{suffix}", written(rows, suffix))
    assert repr(found) == repr(rows)


@each_example
@given(st.dictionaries(TEXTS, st.dictionaries(TEXTS.filter("key".__ne__), VALUES, max_size=3), max_size=5))
def test_an_object_of_objects_has_its_keys_as_a_column(tmp_path: Path, rows: dict[str, dict[str, Any]]) -> None:
    assert read(tmp_path, "clips.json", json.dumps(rows)) == [{"key": key, **row} for key, row in rows.items()]


def test_numbers_of_json_are_exact(tmp_path: Path) -> None:
    texts = ["1.50", "0.1", "1e400", "0.1000000000000000055511151231257827", "9007199254740993", "-0.0", "1E3"]
    table = ",".join(f'{{"n": {one}}}' for one in texts)
    values = [row["n"] for row in read(tmp_path, "a.json", f"[{table}]")]
    assert values == [1.5, 0.1, Decimal("1e400"), Decimal(texts[3]), 9007199254740993, -0.0, 1000.0]
    assert [type(value) for value in values] == [float, float, Decimal, Decimal, int, float, float]


@pytest.mark.parametrize("size", range(65_500, 65_560, 7))
def test_a_row_may_lie_anywhere_between_the_pieces_that_are_read(tmp_path: Path, size: int) -> None:
    rows: Rows = [{"a": "x" * size, "n": 12345}, {"a": "\\\u00e9\n" * 9}, {"n": -1.25}, {"b": {"c": [1, 2]}}]
    assert read(tmp_path, "a.json", json.dumps(rows)) == rows


# ---- bad rows --------------------------------------------------------------------------------------------------


def test_commas_at_the_ends_of_lines_are_no_columns(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "a,b,,\n1,2,,\n\n3,,,\n") == [{"a": "1", "b": "2"}, {"a": "3", "b": ""}]
    assert read(tmp_path, "a.csv", ",a,b\n0,1,2\n1,3,4\n") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}], "pandas"
    lost, kept = read(tmp_path, "a.csv", "a,b,\nx,y,z\nx,y,\n")
    assert lost.startswith("line 2: a value in a column without a name") and kept == {"a": "x", "b": "y"}


def test_a_row_with_another_number_of_fields_is_one_bad_row(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.csv", 'a,b\n1,2\n3\n4,"5\n6"\n7,8,9\n0,0\n')
    assert rows[1] == "line 3: not as many fields as the header names" and rows[3].startswith("line 6: ")
    assert [rows[0], rows[2], rows[4]] == [{"a": "1", "b": "2"}, {"a": "4", "b": "5\n6"}, {"a": "0", "b": "0"}]


def test_a_bad_line_of_json_lines_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MOST, 500)
    lines = ["{", "[1]", '{"a": NaN}', '{"a":1,"a":2}', f'{{"a":"{"x" * 1000}"}}', '{"a":' * 15 + "1", "[" * 99, "\0"]
    rows = read(tmp_path, "a.jsonl", "".join(f'{line}\n{{"n": {n}}}\n' for n, line in enumerate(lines)))
    assert rows[1::2] == [{"n": n} for n in range(len(lines))]
    assert [row.partition(":")[0] for row in rows[::2]] == [f"line {2 * n + 1}" for n in range(len(lines))]
    for row, word in zip(
        rows[::2], ("one object on each line", "not a JSON object", "NaN", "'a' is there twice", "longer"), strict=False
    ):
        assert word in row


def test_a_bad_entry_of_json_is_one_bad_row(tmp_path: Path) -> None:
    text = '[{"n":0}, null, [{"n":1}], "x", 5, {"a":NaN}, {"a":1,"a":2}, {"a":{"b":1,"b":2}}, {"s":"\ud800é"}]'
    rows = read(tmp_path, "a.json", text.encode("utf-8", "surrogatepass"))
    words = ("null, not an object", "a list", "a text", "a number", "NaN", "'a' is there twice")
    assert all(
        f"row {n}: " in row and word in row for n, (row, word) in enumerate(zip(rows[1:7], words, strict=True), 2)
    )
    assert rows[0] == {"n": 0} and rows[7] == {"a": {"b": 2}} and rows[8]["s"].endswith("é")


def test_a_key_that_differs_from_its_name_is_one_bad_row(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.json", '{"a": {"key": "a", "n": 1}, "b": {"key": "c"}, "5": {"key": 5}, "d": {}}')
    assert rows[0] == {"key": "a", "n": 1} and rows[2:] == [{"key": 5}, {"key": "d"}]
    assert rows[1] == "row 2: its key is 'b', and it has a 'key' of its own that differs; rename or drop that"


# ---- damage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", "", ("ends in none of .csv", ".json.gz")),
        ("a.parquet.gz", "", ("ends in none of",)),
        ("a.csv", "", ("names no column",)),
        ("a.csv", ",,\n1,2,3\n", ("names no column",)),
        ("a.csv", "a,b,a\n1,2,3\n", ("'a' is there twice",)),
        ("a.csv", 'a,b\n1,2\n"3"x,4\n', ("line 3", "not a CSV file")),
        ("a.csv", 'a,b\n1,"2\n3,4\n', ("line 2", "not a CSV file")),
        ("a.csv", "a,b\n".encode("utf-16"), ("UTF-16",)),
        ("a.json", "", ("it is empty", "one list of objects or one object of objects")),
        ("a.json", "5", ("begins with '5'",)),
        ("a.json", '["a", "b"]', ("its first entry is a text",)),
        ("a.json", '{"version": 1, "clips": []}', ("its first entry is a number",)),
        ("a.json", '{"a": "x"}\n{"a": "y"}\n', ("its first entry is a text", "name JSON lines .jsonl")),
        ("a.json", '[{"a":1},', ("row 2", "not sound JSON")),
        ("a.json", '[{"a":1}', ("row 1", "it ends too early")),
        ("a.json", '[{"a":1}]]', ("row 1", "more follows its end")),
        ("a.json", '[{"a":1} {"a":2}]', ("row 1", "expected ',', found '{'")),
        ("a.json", '[{"a":1},]', ("row 2",)),
        ("a.json", '{"a":{}, b:{}}', ("row 2", "a key in quotation marks")),
        ("a.json", '[{"a":1},{"a":' + "1" * 5000 + "}]", ("row 2", "4300 digits")),
        ("a.json", '[{"a":1},{"a":1e9999999999999999999}]', ("row 2", "too large")),
        ("a.json", '[{"a":1},{"a":' + "[" * 100_000, ("row 2",)),
        ("a.json", "[{}" + ',{"a":"' + "x" * 3000 + '"}]', ("row 2", "longer than")),
        ("a.json", "[{}" + ',{"a":"' + "x" * 300_000, ("row 2", "longer than")),
        ("a.csv", "a,b\n" + "x" * 3000 + ",1\n", ("line 2", "longer than")),
    ],
)
def test_damage_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes | str, words: tuple[str, ...]
) -> None:
    if "x" * 3000 in str(data):
        monkeypatch.setattr(MOST, 2000)
    said = mistake(tmp_path, name, data)
    assert all(word in said for word in words), said


@pytest.mark.parametrize("suffix", [suffix for suffix in TABLE_SUFFIXES if suffix.endswith(".gz")])
@pytest.mark.parametrize(
    "harm", [lambda data: data[:-9], lambda data: data[:-8] + b"12345678", lambda data: data + b"junk"]
)
def test_a_damaged_gzip_names_the_last_row_that_was_read(
    tmp_path: Path, suffix: str, harm: Callable[[bytes], bytes]
) -> None:
    rows: Rows = [{"a": f"{n:x>70000}"} for n in range(3)]
    said = mistake(tmp_path, f"a{suffix}", harm(written(rows, suffix)))
    assert "not a sound gzip file" in said and (", after line" in said or ", after row" in said)
    assert "before the first row: not a sound gzip" in mistake(tmp_path, f"a{suffix}", b"not packed")


# ---- memory ----------------------------------------------------------------------------------------------------


def peak(read_all: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        read_all()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_json_takes_the_memory_of_a_few_rows(tmp_path: Path) -> None:
    row = json.dumps({"caption": "x" * 20_000, "n": [1, 2.5]})
    (tmp_path / "a.json").write_text(f"[{','.join([row] * 1000)}]")
    count = 0

    def read_all() -> None:
        nonlocal count
        count = sum(1 for _ in rows_of(Storage.at(tmp_path), "a.json"))

    assert peak(read_all) < 4 << 20 and count == 1000


@pytest.mark.parametrize("suffix", [".csv.gz", ".jsonl.gz", ".json.gz"])
def test_a_gzip_that_unpacks_to_much_takes_the_memory_of_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(MOST, 1 << 20)
    begin = {".csv.gz": b"a,b\n", ".jsonl.gz": b'{"a": "', ".json.gz": b'[{"a": "'}[suffix]
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(begin + b"x" * (30 << 20), 1))

    def read_all() -> None:
        (bad,) = rows_of(Storage.at(tmp_path), f"a{suffix}")
        raise UsageError(str(bad))

    def refused() -> None:
        with pytest.raises(UsageError, match="longer than"):
            read_all()

    assert peak(refused) < 12 << 20
