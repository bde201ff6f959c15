"""The selection of a part of a source's clips, before any rule: by a predicate, by number, or by lot.

Tested in tests/curation/sources/test_selection.py.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from nextscene.common.errors import UsageError
from nextscene.common.predicate import Predicate
from nextscene.curation.sources.clip import OPEN_END, Clip

NO_SEED = -1


@dataclass(frozen=True)
class Selection:
    """The part of a source that is taken. `limit` 0 means all.

    With NO_SEED it takes the first clips, else those drawn by lot. A lot is a hash of seed and clip id: the order of
    the source makes no difference.
    """

    where: Predicate | None = None
    limit: int = 0
    sample_seed: int = NO_SEED

    @property
    def reads_twice(self) -> bool:
        return self.limit > 0 and self.sample_seed != NO_SEED

    def limited(self, clips: Callable[[], Iterator[Clip]]) -> Iterator[Clip]:
        """Yield the clips that the limit leaves, in source order. A draw reads `clips` twice."""
        if not self.limit:
            yield from clips()
        elif not self.reads_twice:
            yield from islice(clips(), self.limit)
        else:
            lots = np.frombuffer(array("Q", map(self._lot, clips())), np.uint64)
            last = (
                np.partition(lots, self.limit - 1)[self.limit - 1]
                if self.limit < len(lots)
                else np.iinfo(np.uint64).max
            )
            yield from (clip for clip in clips() if self._lot(clip) <= last)

    def _lot(self, clip: Clip) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.sample_seed}\0{clip.clip_id}".encode()).digest()[:8])


EVERYTHING = Selection()


def matching(clips: Iterator[Clip], where: Predicate, display_uri: str) -> Iterator[Clip]:
    """Yield the clips that a predicate is true for, and those of rows that cannot be read.

    Raise UsageError at the end if no clip has a column that the predicate names.
    """
    unknown, known = set(where.columns), set[str]()
    for clip in clips:
        if not clip.has_place:
            yield clip
            continue
        row = columns_of(clip)
        if unknown:
            unknown -= row.keys()
            known |= row.keys()
        if where.matches(row):
            yield clip
    for column in sorted(unknown):
        near = difflib.get_close_matches(column, known, n=1)
        hint = f"; is {near[0]!r} meant?" if near else f"; there are {', '.join(sorted(known))}" if known else ""
        raise UsageError(f"`source` {display_uri}: no clip has a column {column!r}, which `where` names{hint}")


def columns_of(clip: Clip) -> dict[str, Any]:
    """Return a clip as a row: its columns of the source, its file, texts, and its span in seconds."""
    row: dict[str, Any] = json.loads(clip.provenance) if clip.provenance else {}
    end = None if clip.end_ms == OPEN_END else clip.end_ms / 1000
    own = {"video": clip.name, "id": clip.identity, "start": clip.start_ms / 1000, "end": end}
    return {**row, **own, "caption": clip.caption or None, "scene": clip.scene or row.get("scene")}
