"""Clips on disk while a source is read: to tell which came before, and to sort them by original video.

Its memory does not grow with them.

Tested in tests/curation/sources/mapping/test_clips.py.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path

from nextscene.curation.sources.clip import Clip

# A crash loses nothing: both are made anew by each plan.
_SETUP = "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-32768; BEGIN"


class SeenIds:
    """A set of clip ids in a file of its own."""

    def __init__(self, file: Path) -> None:
        self._table = sqlite3.connect(file, isolation_level=None)
        self._table.executescript(_SETUP)
        self._table.execute("CREATE TABLE ids (id BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, clip_id: str) -> bool:
        """Return whether the id is new."""
        return self._table.execute("INSERT OR IGNORE INTO ids VALUES (?)", (bytes.fromhex(clip_id),)).rowcount > 0


def sorted_by_group(clips: Iterable[tuple[Clip, float]], file: Path) -> Iterator[Clip]:
    """Yield clips with those of one original together, by their order, the originals in the order they begin in.

    `file` is made for it.
    """
    table = sqlite3.connect(file, isolation_level=None)
    table.executescript(_SETUP)
    table.execute("CREATE TABLE clips (original, place REAL, clip)")
    rows = ((clip.original, order, json.dumps(astuple(clip))) for clip, order in clips)
    table.executemany("INSERT INTO clips VALUES (?, ?, ?)", rows)
    table.execute("CREATE TABLE firsts AS SELECT original, min(rowid) AS first FROM clips GROUP BY original")
    table.execute("CREATE INDEX originals ON firsts (original)")
    ordered = table.execute("SELECT clip FROM clips JOIN firsts USING (original) ORDER BY first, place, clips.rowid")
    for (clip,) in ordered:
        yield Clip(*json.loads(clip))
