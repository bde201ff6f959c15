"""The rows of a CSV, whose separator is a comma, a semicolon or a tab.

A row with another number of fields than the header is a bad row, and reading continues at the next line. A quotation
mark that is out of place or never closed ends the table: nothing says where the next row begins.

Tested in tests/curation/sources/tables/test_tables.py.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import chain

from nextscene.common.errors import UsageError
from nextscene.curation.sources.caption import not_unicode
from nextscene.curation.sources.columns import likely_column
from nextscene.curation.sources.tables.table_file import (
    GZIP,
    BadRow,
    Check,
    Row,
    TableFile,
    cut_lines,
    refuse_repeated_name,
)

MAX_HEADER_CHARACTERS = 1 << 20

_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")
_SEPARATORS = (",", ";", "\t")
_WRONG_COUNT = "not as many fields as the header names"


def csv_rows(file: TableFile, check: Check) -> Iterator[Row | BadRow]:
    """Yield the rows. Columns without a name are dropped; those at the end, which come from commas at the ends of
    lines, must be empty. Raise UsageError.
    """
    for name, header, cells in _records(file, check, _separator):
        padding = len(header)
        while padding and not header[padding - 1]:
            padding -= 1
        if len(cells) != len(header):
            yield BadRow(name, _WRONG_COUNT)
        elif any(cells[padding:]):
            yield BadRow(name, "a value in a column without a name; is a separator outside of quotation marks?")
        else:
            yield name, {column: cell for column, cell in zip(header, cells, strict=True) if column}


def csv_clip_rows(file: TableFile, check: Check) -> Iterator[Row | BadRow]:
    """Yield the rows of a table of clips: the separator is one with which there is a column `video`, and a column may
    have no name. Raise UsageError.
    """
    for name, header, cells in _records(file, check, _clip_separator):
        if len(cells) != len(header):
            yield BadRow(name, _WRONG_COUNT)
        else:
            yield name, dict(zip(header, cells, strict=True))


def _records(
    file: TableFile, check: Check, separator_of: Callable[[str, str], str]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each row's name, the header and the row's cells."""
    where = file.display_uri
    # The csv module's default limit is shorter than a caption may be.
    csv.field_size_limit(file.longest_row)
    with file.text(newline="") as text:
        lines = _Record(cut_lines(text, file.longest_row), file)
        first = next(lines, "\n")
        if len(first) > MAX_HEADER_CHARACTERS:
            raise UsageError(f"{where}, line 1: longer than {MAX_HEADER_CHARACTERS >> 20} MiB; is it a table?")
        if wrong := not_unicode(first):
            wrong = "it is in UTF-16" if first.startswith(_UTF_16) else wrong
            raise UsageError(f"{where}: not a CSV file in UTF-8: {wrong}; save it as CSV UTF-8")
        lines.letters = 0
        reader = csv.reader(chain([first], lines), strict=True, delimiter=separator_of(first, file.path))
        done = 0
        try:
            header = next(reader)
            done = reader.line_num
            refuse_repeated_name(header, where)
            check(header, where)
            if not any(header):
                raise UsageError(f"{where}: its first line names no column; write the columns' names there")
            for cells in reader:
                lines.letters, done = 0, reader.line_num
                if cells:
                    yield f"line {done}", header, cells
        except csv.Error as error:
            raise UsageError(f"{where}, line {done + 1}: not a CSV file: {error}") from error


class _Record:
    """An iterator over the lines of a table whose rows may have several lines.

    Raise UsageError for a row that is too long for memory; the caller sets `letters` to 0 before each row.
    """

    def __init__(self, lines: Iterator[str], file: TableFile) -> None:
        self._lines = enumerate(lines, 1)
        self._file = file
        self.letters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        place, most = f"{self._file.display_uri}, line {number}", self._file.longest_in_words
        self.letters += len(line)
        if len(line) > self._file.longest_row:
            raise UsageError(f"{place}: longer than {most}; is it a table?")
        if self.letters > self._file.longest_row:
            raise UsageError(
                f"{place}: the row that ends here or later has more than {most}; is a quotation mark missing?"
            )
        return line


def _names(header: str) -> dict[str, list[str]]:
    return {separator: next(csv.reader([header], delimiter=separator), []) for separator in _SEPARATORS}


def _separator(header: str, path: str) -> str:
    """Return the separator with which the header has the most columns; in a `.tsv` the tab, if there is one.

    A header of one column says nothing: then it is the tab in a `.tsv`, else the comma.
    """
    first = "\t" if path.lower().removesuffix(GZIP).endswith(".tsv") else ","
    names = _names(header)
    most = max(_SEPARATORS, key=lambda separator: len(names[separator]))
    return first if ("\t" in header and first == "\t") or len(names[most]) == 1 else most


def _clip_separator(header: str, _: str) -> str:
    """Return the first separator with which the header has a column `video`.

    If there is none, return the one with which a column is probably meant for `video`, else with the most columns.
    """
    names = _names(header)
    for separator in _SEPARATORS:
        if "video" in names[separator]:
            return separator

    def likeliness(separator: str) -> tuple[bool, int]:
        return likely_column("video", names[separator]) is not None, len(names[separator])

    return max(_SEPARATORS, key=likeliness)
