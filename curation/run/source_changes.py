"""Comparison of the source as it is now with the plan: clips that are new, gone, or different.

A plan never changes, so the comparison does not change the dataset; it is only reported to the user.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice

import numpy as np

from nextscene.common.errors import UsageError
from nextscene.common.storage import BadLocation, Storage, StorageFault
from nextscene.common.text import many
from nextscene.curation.plan_index import PlanIndex
from nextscene.curation.plan_writer import with_preceding_captions
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.sources import MISSING, SIZE_NOT_READ, WHOLE_FILE, Clip, Region, Source, digests, span_text
from nextscene.judge.registry import JUDGES

_AT_ONCE = 4096
_EXAMPLES = 2
_MOST_READ = 256


class DifferenceKind(StrEnum):
    """A kind of difference from the plan, as words that follow "clips". Each clip counts under one kind."""

    NEW = "new"
    GONE = "gone"
    RESPELLED = "named in another Unicode form"
    TWICE = "in it twice, which no plan takes"
    FOUND = "there now, missing when planned"
    OTHER_FILE = "of another file"
    ELSEWHERE = "elsewhere in a tar"
    RESIZED = "of another size"
    CAPTION = "with another caption"
    SCENE = "with another scene"
    PRECEDING = "after another caption"
    COLUMNS = "with other columns"
    CONTENTS = "with other contents"
    ORDER = "in another order"


@dataclass
class SourceDifference:
    """A number of clips, and the names of the first two."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.names) < _EXAMPLES:
            self.names.append(name)


@dataclass
class SourceComparison:
    """The differences between the source and the plan. `unread` is why they could not be compared, "" if they were.

    `has_order` is True for a manifest. Clips that were compared only in part are counted: `unchecked_sizes` without
    size and time, `unchecked_captions` without caption, `unchecked_contents` without the contents of a file whose time
    has changed, `unchecked_columns` without the further columns, which older versions recorded differently.
    """

    kinds: dict[DifferenceKind, SourceDifference] = field(default_factory=dict)
    unread: str = ""
    has_order: bool = False
    unchecked_sizes: int = 0
    unchecked_captions: int = 0
    unchecked_contents: int = 0
    unchecked_columns: int = 0

    @property
    def is_same(self) -> bool:
        return not self.unread and not self.kinds

    def add(self, kind: DifferenceKind, name: str) -> None:
        self.kinds.setdefault(kind, SourceDifference()).add(name)

    def add_some(self, kind: DifferenceKind, count: int, names: list[str]) -> None:
        if count:
            found = self.kinds.setdefault(kind, SourceDifference())
            found.names = [*found.names, *names][:_EXAMPLES]
            found.count += count

    def told(self, but: Iterable[DifferenceKind] = ()) -> str:
        """Return the kinds found, except those in `but`, as text with counts and examples; "" if there are none."""
        return ", ".join(
            _counted(self.kinds[kind], kind) for kind in DifferenceKind if kind in self.kinds and kind not in but
        )


def _counted(clips: SourceDifference, kind: DifferenceKind) -> str:
    more = ", …" if clips.count > len(clips.names) else ""
    return f"{many(clips.count, 'clip')} {kind} ({', '.join(clips.names)}{more})"


def read_previous_config(out: Storage) -> RecordedConfig | None:
    """Return the record that OUT has before a run prepares it; None if there is none or it cannot be read."""
    try:
        return RecordedConfig.read(out)
    except UsageError:
        return None  # `prepare` reports what is wrong with it


def compare_unless_replanned(
    out: Storage, source: Source, before: RecordedConfig | None, now: RecordedConfig
) -> SourceComparison:
    """Return the comparison; an empty one if this run has just made the plan from the source."""
    if before is None or before.plan_sha256 != now.plan_sha256:
        return SourceComparison()
    return compare(out, source, str(now.identity_settings.get("judge", "")))


def compare(out: Storage, source: Source, judge: str) -> SourceComparison:
    """Compare what is cheap to compare. Contents are read only of a few files whose modification time has changed.

    Return the reason in `unread` if the source cannot be read. Raise DamagedRecord if the plan cannot be read.
    """
    try:
        return differences(out, source, judge)
    except (UsageError, StorageFault, BadLocation) as fault:
        return SourceComparison(unread=" ".join(str(fault).splitlines()))


def differences(out: Storage, source: Source, judge: str, moved: bool = False) -> SourceComparison:
    """Compare as `compare`. If the source has `moved`, look up each file and read no contents.

    Raise UsageError for a source that could not be planned; raise StorageFault, BadLocation, and as `compare`.
    """
    planned = PlanIndex(out)
    comparison = _Comparison(planned, source, judge)
    clips = source.scan(lambda path: planned.is_known_tar(source.roots, path), moved, JUDGES[judge].reads_scenes)
    pairs = with_preceding_captions(clips, source, judge)
    while batch := list(islice(pairs, _AT_ONCE)):
        comparison.look(batch)
    return comparison.end(contents=not moved)


class _Comparison:
    def __init__(self, planned: PlanIndex, source: Source, judge: str) -> None:
        self._planned = planned
        self._source = source
        self._judge_kind = JUDGES[judge]
        self._found = SourceComparison(has_order=source.has_order)
        self._seen = np.zeros(len(planned), np.bool_)
        self._differs = np.zeros(len(planned), np.bool_)
        self._order = array("q")
        self._retimed: dict[Region, list[tuple[int, str]]] = {}
        self._respelled: list[tuple[int, Clip]] = []

    def look(self, batch: list[tuple[Clip, str]]) -> None:
        rows = self._planned.rows_of([clip.clip_id for clip, _ in batch])
        for (clip, preceding), row in zip(batch, rows, strict=True):
            if row is None:
                self._add_new(clip)
            elif self._seen[row]:
                self._found.add(DifferenceKind.TWICE, _name(clip))
            else:
                self._seen[row] = True
                self._order.append(row)
                if kind := self._kind(row, clip, preceding):
                    self._differs[row] = True
                    self._found.add(kind, _name(clip))

    def end(self, contents: bool) -> SourceComparison:
        """Return the comparison, once all clips have been looked at. Compare `contents` if asked."""
        for row, clip in self._respelled:
            if self._seen[row]:
                self._found.add(DifferenceKind.NEW, _name(clip))
            else:
                self._seen[row] = True
                self._found.add(DifferenceKind.RESPELLED, f"{_name(clip)} is {_form(clip.identity)} now")
        gone = self._planned.unseen(self._seen)
        self._found.add_some(DifferenceKind.GONE, len(gone), self._planned.names_of(gone, _EXAMPLES))
        if contents:
            self._compare_contents()
        else:
            self._found.unchecked_contents += sum(map(len, self._retimed.values()))
        if self._found.has_order:
            self._compare_order()
        return self._found

    def _add_new(self, clip: Clip) -> None:
        """Add a clip that was not planned.

        Keep it apart if only the Unicode form of its name differs, because some disks change that.
        """
        if not clip.identity.isascii():
            forms = {unicodedata.normalize(form, clip.identity) for form in ("NFC", "NFD")} - {clip.identity}
            rows = self._planned.rows_of([replace(clip, identity=form).clip_id for form in sorted(forms)])
            if (row := next((row for row in rows if row is not None), None)) is not None:
                self._respelled.append((row, clip))
                return
        self._found.add(DifferenceKind.NEW, _name(clip))

    def _kind(self, row: int, clip: Clip, preceding: str) -> DifferenceKind | None:
        """Return the first kind that applies, of those visible without reading contents; None if none applies."""
        planned, size = self._planned, int(self._planned.sizes[row])
        if clip.size == SIZE_NOT_READ:
            self._found.unchecked_sizes += 1
        elif clip.has_place and (size == MISSING) != (clip.size == MISSING):
            return DifferenceKind.FOUND if size == MISSING else DifferenceKind.GONE
        if planned.is_of_another_file(row, clip):
            return DifferenceKind.OTHER_FILE
        if planned.is_elsewhere(row, clip):
            return DifferenceKind.ELSEWHERE
        if size >= 0 and clip.size >= 0 and size != clip.size:
            return DifferenceKind.RESIZED
        if not (self._source.root.is_local or self._source.has_order or clip.length != WHOLE_FILE):
            self._found.unchecked_captions += 1
        elif planned.is_recaptioned(row, clip):
            return DifferenceKind.CAPTION
        if self._judge_kind.reads_scenes and planned.has_other_scene(row, clip):
            return DifferenceKind.SCENE
        if self._judge_kind.reads_preceding and planned.is_preceded_otherwise(row, preceding):
            return DifferenceKind.PRECEDING
        if planned.has_other_columns(row, clip):
            if planned.knows_columns:
                return DifferenceKind.COLUMNS
            self._found.unchecked_columns += 1
        if size >= 0 and clip.size >= 0 and int(planned.times[row]) != clip.mtime_ns:
            self._note_time(row, clip)
        return None

    def _note_time(self, row: int, clip: Clip) -> None:
        region = self._source.region_of(clip)
        if region is None or (region not in self._retimed and len(self._retimed) >= _MOST_READ):
            self._found.unchecked_contents += 1
        else:
            self._retimed.setdefault(region, []).append((row, _name(clip)))

    def _compare_contents(self) -> None:
        """Compare the contents of a few files whose time has changed with their digests, where the plan has these."""
        planned = self._planned.digests_of([row for rows in self._retimed.values() for row, _ in rows])
        now = digests(region for region, rows in self._retimed.items() if any(planned[row] for row, _ in rows))
        for region, rows in self._retimed.items():
            for row, name in rows:
                if not planned[row] or not now.get(region):
                    self._found.unchecked_contents += 1
                elif planned[row] != now[region]:
                    self._differs[row] = True
                    self._found.add(DifferenceKind.CONTENTS, name)

    def _compare_order(self) -> None:
        """Compare the order of the planned clips that exist: a clip added or removed before them does not move them."""
        rows = np.frombuffer(self._order, np.int64)
        places = np.empty(len(rows), np.int64)
        places[np.argsort(self._planned.positions[rows])] = np.arange(len(rows))
        moved = rows[(places != np.arange(len(rows))) & ~self._differs[rows]]
        self._found.add_some(DifferenceKind.ORDER, len(moved), self._planned.names_of(moved, _EXAMPLES))


def _name(clip: Clip) -> str:
    return f"{clip.name}{span_text(clip.start_ms, clip.end_ms)}"


def _form(text: str) -> str:
    return next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, text)), "neither NFC nor NFD")
