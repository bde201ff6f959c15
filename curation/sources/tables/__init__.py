"""Tables as files: CSV, JSON lines, JSON and Parquet, read a row at a time.

`rows_of` reads any table, `row_of_file` a file that is one row, `line_rows` text files side by side, and `READERS`
tables that are a source of clips by themselves.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.common.text import first_line
from nextscene.curation.sources.columns import Columns
from nextscene.curation.sources.tables.csv_rows import csv_clip_rows, csv_rows
from nextscene.curation.sources.tables.json_rows import KEY, json_file_row, json_rows
from nextscene.curation.sources.tables.jsonl_rows import jsonl_rows
from nextscene.curation.sources.tables.line_rows import line_rows
from nextscene.curation.sources.tables.parquet_rows import leaf_of_cells, parquet_rows
from nextscene.curation.sources.tables.table_file import GZIP, BadRow, Check, Row, TableFile

__all__ = [
    "MAX_ROW_CHARACTERS",
    "READERS",
    "TABLE_SUFFIXES",
    "BadRow",
    "Row",
    "line_rows",
    "row_of_file",
    "rows_of",
    "rows_without_cells",
]

MAX_ROW_CHARACTERS = 16 << 20
"""Longest row, in characters. As Python objects they take up to thirty times as many bytes."""

Reader = Callable[[TableFile, Check], Iterator[Row | BadRow]]

_UNPACKED: Mapping[str, Reader] = {".csv": csv_rows, ".tsv": csv_rows, ".jsonl": jsonl_rows, ".json": json_rows}
_READERS = {**_UNPACKED, ".parquet": parquet_rows, **{suffix + GZIP: read for suffix, read in _UNPACKED.items()}}
_DAMAGED_GZIP = (gzip.BadGzipFile, zlib.error, EOFError)

TABLE_SUFFIXES = tuple(_READERS)


def rows_of(root: Storage, path: str) -> Iterator[Row | BadRow]:
    """Yield the rows of a table, whatever its columns, in their order. The suffix of `path` says which kind it is.

    A row that cannot be read, in a table whose next row can be, is a BadRow: in JSON lines any bad line, in a CSV a row
    with another number of fields than the header, in JSON an entry that is not an object, or is a wrong one. Raise
    UsageError for damage that hides where the next row begins, and for a table that cannot be read at all; raise
    FileNotFoundError.
    """
    suffix = next((suffix for suffix in TABLE_SUFFIXES if path.lower().endswith(suffix)), None)
    if suffix is None:
        raise UsageError(
            f"{root.display_uri}/{path}: not a table; its name ends in none of {', '.join(TABLE_SUFFIXES)}"
        )
    file = TableFile(root, path, MAX_ROW_CHARACTERS)
    reached = "before the first row"
    try:
        for row in _READERS[suffix](file, _accept):
            reached = f"after {row.name if isinstance(row, BadRow) else row[0]}"
            yield row
    except _DAMAGED_GZIP as error:
        raise UsageError(
            f"{file.display_uri}, {reached}: not a sound gzip file: {first_line(error)}; copy it once more"
        ) from error


def row_of_file(root: Storage, path: str) -> Iterator[Row | BadRow]:
    """Yield the row that a JSON file of one object is. Raise UsageError for another kind of file."""
    if not path.lower().endswith(".json"):
        raise UsageError(f"{root.display_uri}/{path}: not a .json, and table.row_per_file is about files of that kind")
    yield json_file_row(TableFile(root, path, MAX_ROW_CHARACTERS))


def rows_without_cells(root: Storage, path: str, columns: Sequence[str]) -> tuple[str, Iterator[Row | BadRow]]:
    """Return where the cells that are files lie in a Parquet table, as a path in its schema, and the rows without them.

    The first of `columns` that the table has counts. The column `key` of a row is the table's path and the row's
    number. Raise UsageError if the table has no such cells.
    """
    file = TableFile(root, path, MAX_ROW_CHARACTERS)
    leaf = leaf_of_cells(file, columns)
    rows = parquet_rows(file, _accept, leaf)
    return leaf, ((name, {**row, KEY: f"{path}/{name.removeprefix('row ')}"}) for name, row in rows)


def _accept(columns: object, place: str) -> None:
    """Accept any columns."""


def _of_clips(read: Reader) -> Callable[[Storage, str], Iterator[Row]]:
    """Return a reader for a table of clips, which raises UsageError for a bad row and for wrong columns."""

    def rows(root: Storage, path: str) -> Iterator[Row]:
        file = TableFile(root, path, MAX_ROW_CHARACTERS)
        for row in read(file, Columns().check):
            if isinstance(row, BadRow):
                raise UsageError(f"{file.display_uri}, {row.name}: {row.reason}")
            yield row

    return rows


READERS: Mapping[str, Callable[[Storage, str], Iterator[Row]]] = {
    ".csv": _of_clips(csv_clip_rows),
    ".tsv": _of_clips(csv_clip_rows),
    ".jsonl": _of_clips(jsonl_rows),
    ".parquet": _of_clips(parquet_rows),
}
