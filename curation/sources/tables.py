"""Tables of clips as files: CSV, JSON lines and Parquet, read a row at a time.

Bytes that are not UTF-8 are decoded with `surrogateescape`, so that they concern only the row that has them.

Tested in tests/curation/sources/test_cell_values.py.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage, StorageFault
from nextscene.common.text import first_line
from nextscene.curation.sources.caption import not_unicode
from nextscene.curation.sources.columns import Columns, likely_column

MAX_ROW_CHARACTERS = 16 << 20
"""Longest row, in characters. As Python objects they take up to thirty times as many bytes."""
MAX_HEADER_CHARACTERS = 1 << 20

Row = tuple[str, Mapping[str, Any]]
"""A row's name in messages, such as "row 7", and the row."""

_PARQUET_ROWS = 32
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")
_ONE_PER_LINE = "; write one object on each line, with no brackets or commas between them"
_SEPARATORS = (",", ";", "\t")
_ARROW_RAISES = (pa.ArrowException, ValueError, OverflowError, OSError)
"""The errors that Arrow raises for bytes that it cannot use."""
_BINARY = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}


def _csv(root: Storage, path: str) -> Iterator[Row]:
    where = f"{root.display_uri}/{path}"
    # The csv module's default limit is shorter than a caption may be.
    csv.field_size_limit(MAX_ROW_CHARACTERS)
    with _text(root, path, newline="") as text:
        lines = _Record(_lines(text, where), where)
        header = next(lines, "\n")
        if len(header) > MAX_HEADER_CHARACTERS:
            raise UsageError(f"{where}, line 1: longer than {MAX_HEADER_CHARACTERS >> 20} MiB; is it a table?")
        if not_unicode(header):
            wrong = "it is in UTF-16" if header.startswith(_UTF_16) else not_unicode(header)
            raise UsageError(f"{where}: not a CSV file in UTF-8: {wrong}; save it as CSV UTF-8")
        lines.letters = 0
        table = csv.DictReader(chain([header], lines), strict=True, delimiter=_separator(header))
        try:
            Columns().check(table.fieldnames or (), where)
            for row in table:
                lines.letters = 0
                if None in row or None in row.values():
                    raise UsageError(f"{where}, line {table.line_num}: not as many fields as the header names")
                yield f"line {table.line_num}", row
        except csv.Error as error:
            raise UsageError(f"{where}, line {table.line_num + 1}: not a CSV file: {error}") from error


class _Record:
    """An iterator over the lines of a table whose rows may have several lines.

    Raise UsageError for a row that is too long for memory; the caller sets `letters` to 0 before each row.
    """

    def __init__(self, lines: Iterator[str], where: str) -> None:
        self._lines = enumerate(lines, 1)
        self._where = where
        self.letters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        self.letters += len(line)
        if self.letters > MAX_ROW_CHARACTERS:
            raise UsageError(
                f"{self._where}, line {number}: the row that ends here or later has more than"
                f" {MAX_ROW_CHARACTERS >> 20} MiB; is a quotation mark missing?"
            )
        return line


def _separator(header: str) -> str:
    """Return the first separator with which the header has a column `video`.

    If there is none, return the one with which a column is probably meant for `video`, else with the most columns.
    """
    names = {separator: next(csv.reader([header], delimiter=separator), []) for separator in _SEPARATORS}
    for separator in _SEPARATORS:
        if "video" in names[separator]:
            return separator

    def likeliness(separator: str) -> tuple[bool, int]:
        return likely_column("video", names[separator]) is not None, len(names[separator])

    return max(_SEPARATORS, key=likeliness)


def _jsonl(root: Storage, path: str) -> Iterator[Row]:
    where = f"{root.display_uri}/{path}"
    columns = Columns()
    with _text(root, path, newline="\n") as text:
        for number, line in enumerate(_lines(text, where), 1):
            if not line.strip():
                continue
            place = f"{where}, line {number}"
            try:
                row, names = _object(line)
            except (ValueError, RecursionError) as error:
                remedy = _ONE_PER_LINE if line.strip() in ("[", "{") else ""
                raise UsageError(f"{place}: not JSON: {error}{remedy}") from error
            if not isinstance(row, dict):
                raise UsageError(f"{place}: not a JSON object{_ONE_PER_LINE}")
            columns.check(names, place)
            yield f"line {number}", row


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"there is no {name} in it; write null for what is missing")


def _object(text: str) -> tuple[Any, list[str]]:
    """Return the value of a JSON text, and the names in its outermost object, with repeats. Raise ValueError."""
    names: list[str] = []

    def remember(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names[:] = [name for name, _ in pairs]  # inner objects are parsed first, the outermost last
        return dict(pairs)

    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=remember), names


def _parquet(root: Storage, path: str) -> Iterator[Row]:
    where = f"{root.display_uri}/{path}"
    with root.open(path) as file:
        try:
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            Columns().check(names, where)
            number = 0
            # A column's dictionary may have one long value to which every row refers.
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS, use_threads=False):
                if batch.nbytes > MAX_ROW_CHARACTERS:
                    _refuse_long_rows(batch, number, where)
                for values in zip(*map(_values, batch.columns), strict=True):
                    number += 1
                    yield f"row {number}", dict(zip(names, values, strict=True))
        except _ARROW_RAISES as error:
            if isinstance(error, OSError) and error.errno:
                raise StorageFault(f"cannot read {where}: {error.strerror}") from error
            raise UsageError(f"{where}: not a sound Parquet file: {first_line(error)}") from error


def _refuse_long_rows(batch: pa.RecordBatch, before: int, where: str) -> None:
    for place in range(batch.num_rows):
        if batch.slice(place, 1).nbytes > MAX_ROW_CHARACTERS:
            most = f"{MAX_ROW_CHARACTERS >> 20} MiB"
            raise UsageError(f"{where}, row {before + place + 1}: longer than {most}; is it a table of clips?")


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if (coarser := _in_microseconds(column.type)) != column.type:
        column = column.cast(coarser, safe=False)
    try:
        values: list[Any] = column.to_pylist()
    except (UnicodeDecodeError, OverflowError):
        if column.type in _BINARY:
            binary = column.cast(_BINARY[column.type]).to_pylist()
            return [data if data is None else data.decode("utf-8", "surrogateescape") for data in binary]
        values = [_value(scalar) for scalar in column]
    return values


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """Return the type with nanoseconds replaced by microseconds, which are as exact as Python's times.

    From finer times Arrow makes other values if pandas is installed.
    """
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if pa.types.is_list(kind):
        return pa.list_(_in_microseconds(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _in_microseconds(field.type)) for field in kind])
    return kind


def _value(scalar: pa.Scalar) -> Any:
    """Return one value of a column that Python cannot represent as a whole. A time outside Python's calendar becomes
    Arrow's text for it.
    """
    try:
        return scalar.as_py()
    except UnicodeDecodeError:  # a text in a list or an object
        return "\udcff"
    except OverflowError:
        return scalar.cast(pa.string()).as_py()


def _text(root: Storage, path: str, newline: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(root.open(path), encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _lines(text: io.TextIOWrapper, where: str) -> Iterator[str]:
    """Yield the lines with their line ends. Raise UsageError for a line that is too long for memory."""
    number = 0
    while line := text.readline(MAX_ROW_CHARACTERS + 1):
        number += 1
        if len(line) > MAX_ROW_CHARACTERS:
            raise UsageError(f"{where}, line {number}: longer than {MAX_ROW_CHARACTERS >> 20} MiB; is it a table?")
        yield line


READERS: Mapping[str, Callable[[Storage, str], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
