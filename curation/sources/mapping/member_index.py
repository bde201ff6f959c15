"""The members of a source on disk, found by the key that rows join them by. Its memory does not grow with them.

Tested in tests/curation/sources/mapping/test_clips.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path, PurePosixPath

from nextscene.curation.sources.clip import is_media
from nextscene.curation.sources.mapping.layout import JoinKey
from nextscene.curation.sources.members import Member

_CREATE = """CREATE TABLE members
    (key, name, location, offset, length, packed, size, mtime_ns, flaw, flaw_detail, used DEFAULT 0)"""
_INSERT = "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)"
_FIND = """SELECT name, location, offset, length, packed, size, mtime_ns, flaw, flaw_detail
    FROM members WHERE key = ? GROUP BY location, offset ORDER BY min(rowid) LIMIT 1000"""


def join_key(name: str, by: JoinKey) -> str:
    """Return what must be equal in a row's and a member's name. Repeated slashes and `./` make no difference."""
    path = PurePosixPath(name)
    if by == "name":
        return str(path)
    return path.stem if by == "stem" and is_media(path.name) else path.name


class MemberIndex:
    """A table of members in a file of its own, which is deleted with its folder."""

    def __init__(self, file: Path, by: JoinKey) -> None:
        self._by = by
        self._table = sqlite3.connect(file, isolation_level=None)
        # A crash loses nothing: the index is made anew by each plan.
        self._table.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536; BEGIN")
        self._table.execute(_CREATE)

    def add(self, members: Iterable[Member]) -> None:
        rows = ((join_key(member.name, self._by), *astuple(member)) for member in members)
        self._table.executemany(_INSERT, rows)

    def end(self) -> None:
        """Prepare the index for `find`, once all members are added."""
        self._table.execute("CREATE INDEX keys ON members (key)")

    def find(self, name: str) -> list[Member]:
        """Return the members that a row with this name may mean, each once, and mark all of them as used."""
        key = join_key(name, self._by)
        members = [Member(*row) for row in self._table.execute(_FIND, (key,))]
        if members:
            self._table.execute("UPDATE members SET used = 1 WHERE key = ? AND NOT used", (key,))
        return members

    def unused(self) -> Iterator[str]:
        """Yield the names of the members that no row has used."""
        yield from (name for (name,) in self._table.execute("SELECT name FROM members WHERE NOT used ORDER BY rowid"))
