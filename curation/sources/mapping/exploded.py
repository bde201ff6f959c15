"""Rows with lists, taken apart: one row for each element of the lists, which must be equally long.

Tested in tests/curation/sources/mapping/test_row_reader.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nextscene.curation.sources.cell_values import InvalidValue, WrongType, is_absent
from nextscene.curation.sources.mapping.row_path import list_of


def exploded(row: Mapping[str, Any], columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Return a row for each element of the lists in `columns`; the row itself if there are no such columns.

    Raise InvalidValue or WrongType for a row whose lists have different lengths, or that has something else there.
    """
    if not columns:
        return iter([row])
    lists: dict[str, Sequence[Any]] = {}
    for column in columns:
        value = row.get(column)
        try:
            lists[column] = [] if is_absent(value) or value == "" else list_of(value)
        except WrongType as mistake:
            raise WrongType(f"{column} {mistake}") from mistake
    lengths = {column: len(values) for column, values in lists.items()}
    if len({*lengths.values()}) > 1:
        told = ", ".join(f"{column} {length}" for column, length in lengths.items())
        raise InvalidValue("bad_row", f"its lists have different lengths: {told}")
    return ({**row, **dict(zip(lists, elements, strict=True))} for elements in zip(*lists.values(), strict=True))
