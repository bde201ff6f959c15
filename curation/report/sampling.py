"""Stratified, deterministic sampling of the clips on the page: some clips of every outcome and reason."""

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
    """A sampled clip, and the unit and shard in whose ledger its row is."""

    clip_id: str
    split: str
    unit: int
    shard: int


class Sampler:
    """A sampler of at most `max_clips` clips from rows in any order. A hash of the ids decides."""

    def __init__(self, max_clips: int) -> None:
        self._max_clips = max_clips
        self._seen: dict[Stratum, int] = {}
        # The clips of each stratum with the smallest hashes, as a heap whose first entry has the largest of these.
        self._drawn: dict[Stratum, list[tuple[int, SampledClip]]] = {}

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            stratum = (row.outcome, row.reason)
            self._seen[stratum] = self._seen.get(stratum, 0) + 1
            heap = self._drawn.setdefault(stratum, [])
            entry = (-_hash_rank(row.clip_id), SampledClip(row.clip_id, row.split, row.unit, row.shard))
            if len(heap) < self._max_clips:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)

    def sampled(self) -> list[SampledClip]:
        """Return the sample in the order of the ids."""
        shares = allocate(self._seen, self._max_clips)
        return sorted(
            clip for stratum, share in shares.items() for _, clip in heapq.nlargest(share, self._drawn[stratum])
        )


def allocate(sizes: Mapping[Stratum, int], max_clips: int) -> dict[Stratum, int]:
    """Return how many clips of each stratum are shown: a few of each, the rest of `max_clips` in proportion to size.

    A stratum never gets more clips than it has. With more strata than `max_clips`, the largest strata get one each.
    """
    strata = sorted(sizes, key=lambda stratum: (-sizes[stratum], stratum))[:max_clips]
    if not strata:
        return {}
    few = max(1, min(_MIN_PER_STRATUM, max_clips // len(strata)))
    shares = {stratum: min(sizes[stratum], few) for stratum in strata}
    free = max_clips - sum(shares.values())
    waiting = sum(sizes[stratum] - shares[stratum] for stratum in strata)
    if waiting <= free:
        return {stratum: sizes[stratum] for stratum in strata}
    for stratum in strata:
        shares[stratum] += free * (sizes[stratum] - shares[stratum]) // waiting
    # Rounding leaves less than one clip per stratum that has more to show, and these are the largest strata.
    for stratum in strata[: max_clips - sum(shares.values())]:
        shares[stratum] += 1
    return shares


def _hash_rank(clip_id: str) -> int:
    # Splits are drawn by the plain hash of an id, so the smallest plain hashes are all of one split: add a salt.
    return int.from_bytes(hashlib.sha256(f"report\0{clip_id}".encode()).digest()[:8])
