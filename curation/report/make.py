"""The making of `report.html`: count the ledger, sample clips, decode their pictures, write the page.

Tested in tests/curation/report/test_page.py.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from nextscene.common.consistent_read import read_consistently
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.ledger import Row, read_ledger
from nextscene.curation.outcome import OUTCOMES
from nextscene.curation.plan import Plan, PlannedClip
from nextscene.curation.report.cards import make_card
from nextscene.curation.report.counts import Counts
from nextscene.curation.report.decode_pool import decode_all
from nextscene.curation.report.filmstrips import Filmstrip, FilmstripTask, ShardFilmstripTask, SourceFilmstripTask
from nextscene.curation.report.page import PageFacts, render
from nextscene.curation.report.sampling import SampledClip, Sampler
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sources import Root
from nextscene.curation.summary import BuildSummary
from nextscene.shards.format.layout import REPORT, ShardName

MAX_CARDS = 240
_PICTURE_SECONDS = 20.0


@dataclass(frozen=True)
class PublishedPage:
    """A page that was published: its sha256, and a line for each clip on it whose shard is damaged."""

    sha256: str
    damages: list[str]


def write_report(out: Storage, config: BuildConfig, fingerprint: str, source: Root | None) -> PublishedPage:
    """Publish the page about the clips that are committed in OUT now.

    Locations in the plan are relative to `source`. If it is None, clips that are not in a shard have no picture. If no
    picture of a clip can be made, the page shows the reason instead. Raise FileNotFoundError if a ledger is gone,
    DamagedRecord if one cannot be read, StorageFault if OUT cannot be read or written.
    """
    plan = Plan(out, config)
    state, counts, rows = _read(out, config.units_per_shard)
    rows.sort(key=lambda row: (_ORDER[row.outcome], row.position))
    limits = replace(config.limits, clip_seconds=min(config.limits.clip_seconds, _PICTURE_SECONDS))
    strips = _Filmstrips(out, replace(config, limits=limits), source, plan, state).of(rows)
    cards = [make_card(row, strip, config.encode.fps) for row, strip in zip(rows, strips, strict=True)]
    facts = PageFacts(config, fingerprint, plan.clips, counts, BuildSummary.read(out), plan.passed_over)
    page = render(facts, cards).encode()
    out.write(REPORT, page)
    damages = [f"clip {row.clip_id}: {one.missing}" for row, one in zip(rows, strips, strict=True) if one.damaged]
    return PublishedPage(hashlib.sha256(page).hexdigest(), damages)


_ORDER: dict[str, int] = {outcome: place for place, outcome in enumerate(OUTCOMES)}


def _read(out: Storage, units_per_shard: int) -> tuple[CommittedState, Counts, list[Row]]:
    """Return the state, its counts and the rows to show, with one ledger file in memory at a time.

    Read again if a run at work has meanwhile sealed a shard and deleted the ledgers of its units.
    """
    return read_consistently(partial(CommittedState.read, out, units_per_shard), partial(_count_and_sample, out))


def _count_and_sample(out: Storage, state: CommittedState) -> tuple[CommittedState, Counts, list[Row]]:
    counts, sampler = Counts(), Sampler(MAX_CARDS)
    for rows in state.ledgers(out):
        counts.add(rows)
        sampler.add(rows)
    return state, counts, list(_rows(out, state, sampler.sampled()))


def _rows(out: Storage, state: CommittedState, sampled: Iterable[SampledClip]) -> Iterator[Row]:
    """Yield the rows of the sampled clips, one ledger file at a time."""
    units = {(unit.split, unit.index): unit.ledger for unit in sorted(state.committed)}
    wanted: dict[str, set[str]] = defaultdict(set)
    for clip in sampled:
        sealed = state.sealed.get((clip.split, clip.shard))
        wanted[sealed.ledger if sealed else units[clip.split, clip.unit]].add(clip.clip_id)
    for path, clip_ids in wanted.items():
        yield from (row for row in read_ledger(out, path) if row.clip_id in clip_ids)


class _Filmstrips:
    """The maker of the clips' filmstrips: it finds each clip in a shard or in the source."""

    def __init__(
        self, out: Storage, config: BuildConfig, source: Root | None, plan: Plan, state: CommittedState
    ) -> None:
        self._out = out
        self._config = config
        self._source = source
        self._plan = plan
        self._state = state

    def of(self, rows: list[Row]) -> list[Filmstrip]:
        planned = self._planned(row for row in rows if not row.kept)
        found = [self._one(row, planned.get(row.clip_id)) for row in rows]
        made = iter(decode_all([one for one in found if not isinstance(one, Filmstrip)], self._config.limits))
        return [one if isinstance(one, Filmstrip) else next(made) for one in found]

    def _one(self, row: Row, clip: PlannedClip | None) -> FilmstripTask | Filmstrip:
        if row.kept:
            shard = self._state.sealed.get((row.split, row.shard))
            if shard is None:
                return Filmstrip(missing="its shard is not sealed yet")
            return ShardFilmstripTask(self._out, shard, row.clip_id, row.mp4_sha256)
        if row.outcome == "quarantined":
            return Filmstrip(missing="it kills the process that opens it, so it is not opened")
        if self._source is None:
            return Filmstrip(missing="it is in no shard, and its source is not available")
        if clip is None:
            return Filmstrip(missing="it is in no shard, and not in the plan")
        return SourceFilmstripTask(self._source, clip, self._config)

    def _planned(self, rows: Iterable[Row]) -> dict[str, PlannedClip]:
        """Return clip id → row of the plan for these clips. The plan is read one shard at a time."""
        wanted: dict[ShardName, set[str]] = defaultdict(set)
        for row in rows:
            wanted[ShardName(row.split, row.shard)].add(row.clip_id)
        return {
            clip.clip_id: clip
            for shard, clip_ids in sorted(wanted.items())
            for unit in self._plan.units(shard)
            for clip in unit.clips
            if clip.clip_id in clip_ids
        }
