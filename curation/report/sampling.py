"""Which clips the page shows: the same of the same ledger, and some of every way to end."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nextscene.curation.ledger import Row

Stratum = tuple[str, str]
"""(outcome, reason)."""

_MIN_PER_STRATUM = 12


@dataclass(frozen=True, order=True)
class SampledClip:
    """A clip and where its row stands: in the ledger of its shard, or of its unit where that is not sealed."""

    clip_id: str
    split: str
    unit: int
    shard: int


class Sampler:
    """Draws at most `most` clips out of a stream of rows, by a hash of their ids; order and files do not matter."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[Stratum, int] = {}
        # Of each stratum those with the smallest hashes, as a heap whose first is the largest of them.
        self._drawn: dict[Stratum, list[tuple[int, SampledClip]]] = {}

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            stratum = (row.outcome, row.reason)
            self._seen[stratum] = self._seen.get(stratum, 0) + 1
            heap = self._drawn.setdefault(stratum, [])
            entry = (-_hash_rank(row.clip_id), SampledClip(row.clip_id, row.split, row.unit, row.shard))
            if len(heap) < self._most:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)

    def picks(self) -> list[SampledClip]:
        """The sample, in the order of the ids."""
        seats = allocate(self._seen, self._most)
        return sorted(pick for stratum, seat in seats.items() for _, pick in heapq.nlargest(seat, self._drawn[stratum]))


def allocate(sizes: Mapping[Stratum, int], most: int) -> dict[Stratum, int]:
    """How many of each stratum are shown: a few of each, the rest of the `most` in proportion to size.

    No stratum gets more than it has. With more strata than places the largest get one each.
    """
    strata = sorted(sizes, key=lambda stratum: (-sizes[stratum], stratum))[:most]
    if not strata:
        return {}
    few = max(1, min(_MIN_PER_STRATUM, most // len(strata)))
    seats = {stratum: min(sizes[stratum], few) for stratum in strata}
    free = most - sum(seats.values())
    waiting = sum(sizes[stratum] - seats[stratum] for stratum in strata)
    if waiting <= free:
        return {stratum: sizes[stratum] for stratum in strata}
    for stratum in strata:
        seats[stratum] += free * (sizes[stratum] - seats[stratum]) // waiting
    # What rounding left is less than one for each that still has more, and those are the largest.
    for stratum in strata[: most - sum(seats.values())]:
        seats[stratum] += 1
    return seats


def _hash_rank(clip_id: str) -> int:
    # Salted: the plain hash of an id is what splits are drawn by, and the smallest of those are all of one split.
    return int.from_bytes(hashlib.sha256(f"report\0{clip_id}".encode()).digest()[:8])
