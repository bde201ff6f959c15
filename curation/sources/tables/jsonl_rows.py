"""The rows of JSON lines: one object on each line. Reading continues at the next line after any bad row.

Tested in tests/curation/sources/tables/test_tables.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from nextscene.curation.sources.tables.table_file import BadRow, Check, Row, TableFile, cut_lines, repeated_name

_ONE_PER_LINE = "; write one object on each line, with no brackets or commas between them"


def jsonl_rows(file: TableFile, check: Check) -> Iterator[Row | BadRow]:
    """Yield the rows. Raise UsageError."""
    with file.text(newline="\n") as text:
        for number, line in enumerate(cut_lines(text, file.longest_row), 1):
            if not line.strip():
                continue
            name = f"line {number}"
            if len(line) > file.longest_row:
                yield BadRow(name, f"longer than {file.longest_in_words}; is it a table?")
                continue
            try:
                row, names = _object(line)
            except (ValueError, RecursionError) as error:
                remedy = _ONE_PER_LINE if line.strip() in ("[", "{") else ""
                yield BadRow(name, f"not JSON: {error}{remedy}")
                continue
            if not isinstance(row, dict):
                yield BadRow(name, f"not a JSON object{_ONE_PER_LINE}")
            elif len(names) > len(row) and (wrong := repeated_name(names)):
                yield BadRow(name, wrong)
            else:
                check(names, f"{file.display_uri}, {name}")
                yield name, row


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"there is no {name} in it; write null for what is missing")


def _object(text: str) -> tuple[Any, list[str]]:
    """Return the value of a JSON text, and the names in its outermost object, with repeats. Raise ValueError."""
    names: list[str] = []

    def remember(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names[:] = [name for name, _ in pairs]  # inner objects are parsed first, the outermost last
        return dict(pairs)

    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=remember), names
