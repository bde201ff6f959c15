"""A table as a file, and what every reader of one yields.

Tested in tests/curation/sources/tables/test_tables.py.
"""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TextIO, cast

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.sources.lfs_pointer import IS_LFS_POINTER, LFS_START, is_lfs_pointer

GZIP = ".gz"

Row = tuple[str, Mapping[str, Any]]
"""A row's name in messages, such as "row 7", and the row."""

Check = Callable[[Sequence[str], str], None]
"""A function of the columns' names and the place of a message, which raises UsageError for columns that it refuses."""

_READ_AHEAD = 1 << 20
_MAX_NAME = 40


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read, in a table whose next row can be. `reason` is a phrase."""

    name: str
    reason: str


@dataclass(frozen=True)
class TableFile:
    """A table, and the number of characters (in Parquet: bytes) of its longest row."""

    root: Storage
    path: str
    longest_row: int

    @property
    def display_uri(self) -> str:
        return f"{self.root.display_uri}/{self.path}"

    @property
    def longest_in_words(self) -> str:
        return f"{self.longest_row >> 20} MiB"

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Yield the bytes of the table; those of a `.gz` are unpacked while they are read."""
        with io.BufferedReader(cast(io.RawIOBase, self.root.open(self.path)), _READ_AHEAD) as file:
            refuse_lfs_pointer(file.peek(len(LFS_START)), self.display_uri)
            if self.path.lower().endswith(GZIP):
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield cast(BinaryIO, unpacked)
            else:
                yield file

    @contextmanager
    def text(self, newline: str) -> Iterator[TextIO]:
        """Yield the text of the table, with line ends as for `open`.

        Bytes that are not UTF-8 are decoded with `surrogateescape`, so that they concern only the row that has them.
        """
        with self.open() as file:
            yield io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def refuse_lfs_pointer(start: bytes, where: str) -> None:
    """Raise UsageError if a table that begins with `start` is a pointer of git-lfs."""
    if is_lfs_pointer(start):
        raise UsageError(f"{where}: {IS_LFS_POINTER}")


def cut_lines(text: TextIO, longest: int) -> Iterator[str]:
    """Yield the lines with their ends. A line of more than `longest` characters is cut to one more."""
    while line := text.readline(longest + 1):
        yield line
        while len(line) > longest and not line.endswith("\n"):
            line = text.readline(longest + 1)


def repeated_name(names: Sequence[str]) -> str:
    """Return what is wrong with columns of which two have the same name, as a phrase; else "".

    Empty names are ignored.
    """
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    return f"{twice[0][:_MAX_NAME]!r} is there twice; rename one of the two, or drop it" if twice else ""


def refuse_repeated_name(names: Sequence[str], place: str) -> None:
    """Raise UsageError if two columns have the same name."""
    if wrong := repeated_name(names):
        raise UsageError(f"{place}: {wrong}")
