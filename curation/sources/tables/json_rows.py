"""The rows of a JSON file that is one list of objects, or one object of objects `{key: {…}}`, read as a json_text.

A row that is not an object, has a name twice, NaN or infinity, or another `key` than its own, is a bad row. Damage, and
a row that nests many hundred levels deep, end the table.

Tested in tests/curation/sources/tables/test_tables.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import PurePosixPath
from typing import Any, TextIO

from nextscene.common.errors import UsageError
from nextscene.curation.sources.tables.table_file import BadRow, Check, Row, TableFile, repeated_name

KEY = "key"

_PIECE = 1 << 16
_SHOWN = 40
_SPACE = re.compile(r"[ \t\n\r]*+")
_CLOSING = {"[": "]", "{": "}"}
_FORM = "a table in JSON is one list of objects or one object of objects; name JSON lines .jsonl"
_KINDS = {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}


def json_rows(file: TableFile, check: Check) -> Iterator[Row | BadRow]:
    """Yield the rows; those of an object of objects have its keys as their column `key`. Raise UsageError.

    Numbers are exact: an int, a float if it is written as the same decimal, else a Decimal.
    """
    where, number = file.display_uri, 0
    with file.text(newline="") as text:
        json_text = _JsonText(text, file.longest_row)
        if (opening := json_text.letter()) not in _CLOSING:
            raise UsageError(f"{where}: {f'it begins with {opening!r}' if opening else 'it is empty'}; {_FORM}")
        json_text.pass_over(opening)
        closing = _CLOSING[opening]
        try:
            while json_text.letter() != closing:
                if number:
                    json_text.pass_over(",")
                number += 1
                key = json_text.key() if opening == "{" else None
                row = json_text.value()
                if not isinstance(row, dict):
                    kind = f"{_KINDS.get(type(row), 'a number')}, not an object"
                    if number == 1:
                        raise UsageError(f"{where}: its first entry is {kind}; {_FORM}")
                    yield BadRow(f"row {number}", kind)
                elif flaw := json_text.flaw(row) or _other_key(row, key):
                    yield BadRow(f"row {number}", flaw)
                else:
                    check(list(row), f"{where}, row {number}")
                    yield f"row {number}", row if key is None else {KEY: key, **row}
            json_text.pass_over(closing)
            if json_text.letter():
                raise ValueError("more follows its end")
        except (ValueError, RecursionError) as error:
            said = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise UsageError(f"{where}, row {number}: not sound JSON: {said}; no later row can be read") from error


def json_file_row(file: TableFile) -> Row | BadRow:
    """Return the row of a JSON file that is one object: its column `key` is the file's name without its suffix."""
    name, key = "row 1", PurePosixPath(file.path).stem
    with file.text(newline="") as text:
        json_text = _JsonText(text, file.longest_row)
        try:
            row = json_text.value()
            if json_text.letter():
                return BadRow(name, "more follows its first value; is it a table?")
        except (ValueError, RecursionError) as error:
            return BadRow(name, f"not sound JSON: {error}")
    if not isinstance(row, dict):
        return BadRow(name, f"{_KINDS.get(type(row), 'a number')}, not an object")
    flaw = json_text.flaw(row) or _other_key(row, key)
    return BadRow(name, flaw) if flaw else (name, {KEY: key, **row})


class _JsonText:
    """The text of a table, of which a row and a piece are held. All methods raise ValueError for what is not JSON."""

    def __init__(self, text: TextIO, longest: int) -> None:
        self._text = text
        self._longest = longest
        self._held = ""
        self._at = 0
        self._names: list[str] = []
        self._constant = ""
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_float=_exact, parse_constant=self._note_constant
        )

    def letter(self) -> str:
        """Return the next letter that is not white space, without passing over it; "" at the end."""
        while True:
            self._at = _SPACE.match(self._held, self._at).end()  # type: ignore[union-attr]  # it matches ""
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._read_more():
                return ""

    def pass_over(self, letter: str) -> None:
        if (found := self.letter()) != letter:
            raise ValueError(f"expected {letter!r}, found {found!r}" if found else "it ends too early")
        self._at += 1

    def key(self) -> str:
        if self.letter() != '"':
            raise ValueError(f"expected a key in quotation marks, found {self.letter()!r}")
        key: str = self.value()
        self.pass_over(":")
        return key

    def value(self) -> Any:
        """Return the next value, and pass over it."""
        self._constant = ""
        self.letter()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self._at)
            except json.JSONDecodeError as error:
                if len(self._held) - self._at > self._longest:
                    raise ValueError(f"{error.msg}, or longer than {self._longest >> 20} MiB") from error
                if not self._read_more():
                    raise
                continue
            if end - self._at > self._longest:
                raise ValueError(f"longer than {self._longest >> 20} MiB")
            if end < len(self._held) or not self._read_more():  # a number may continue
                self._at = end
                return value

    def flaw(self, row: dict[str, Any]) -> str:
        """Return what is wrong with the last value, an object; "" if nothing is."""
        if len(self._names) > len(row) and (wrong := repeated_name(self._names)):
            return wrong
        return f"there is {self._constant} in it; write null for what is missing" if self._constant else ""

    def _read_more(self) -> bool:
        """Hold more of the text, without what was passed. Twice as much each time, as values are begun again then."""
        self._held = self._held[self._at :]
        self._at = 0
        piece = self._text.read(max(_PIECE, len(self._held)))
        self._held += piece
        return bool(piece)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self._names = [name for name, _ in pairs]  # inner objects are parsed first, the outermost last
        return dict(pairs)

    def _note_constant(self, name: str) -> None:
        self._constant = name


def _other_key(row: dict[str, Any], key: str | None) -> str:
    if key is None or str(row.get(KEY, key)) == key:
        return ""
    return f"its key is {key[:_SHOWN]!r}, and it has a {KEY!r} of its own that differs; rename or drop that"


def _exact(text: str) -> float | Decimal:
    near = float(text)
    try:
        exact = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"the number {text[:_SHOWN]} is too large") from error
    return near if Decimal(repr(near)) == exact else exact
