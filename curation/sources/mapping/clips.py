"""The clips of a source with a layout: its rows, each joined with its file.

One bad item is one clip that ends with a reason: a row that cannot be read or has no file, an archive that cannot be
listed. Files that no row names are counted among the files passed over.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from nextscene.common.errors import UsageError
from nextscene.common.joined_storage import SEPARATOR, pieces_of
from nextscene.common.patterns import matching_files, nearest_files
from nextscene.common.predicate import Predicate
from nextscene.common.scratch import scratch_folder
from nextscene.common.storage import BadLocation, Storage, split_query
from nextscene.common.text import MAX_NAME, readable_text
from nextscene.curation.sources.archive_index import ArchiveIndex
from nextscene.curation.sources.caption import ABSENT, DUPLICATE, REMEDY, first_flawed, not_unicode
from nextscene.curation.sources.cell_values import InvalidValue, WrongType
from nextscene.curation.sources.clip import Clip, is_image, is_media, locate
from nextscene.curation.sources.columns import listed
from nextscene.curation.sources.mapping.clip_spool import SeenIds, sorted_by_group
from nextscene.curation.sources.mapping.exploded import exploded
from nextscene.curation.sources.mapping.layout import Layout
from nextscene.curation.sources.mapping.member_index import MemberIndex
from nextscene.curation.sources.mapping.row_reader import MappedRow, RowReader
from nextscene.curation.sources.mapping.template import Template
from nextscene.curation.sources.members import BadArchive, Member, grouped, is_archive, members_of
from nextscene.curation.sources.members.member import REPEATED
from nextscene.curation.sources.members.parquet_cells import cell_packing
from nextscene.curation.sources.skipped_files import NO_ROW, NOT_UTF8, SkippedFiles
from nextscene.curation.sources.tables import BadRow, Row, line_rows, row_of_file, rows_of, rows_without_cells

_MOST_BAD = 100
_SHOWN = 3


@dataclass(frozen=True)
class LayoutSource:
    """A folder that a layout describes. `wheres` leave out rows, besides the layout's own predicate."""

    root: Storage
    layout: Layout
    wheres: tuple[Predicate, ...] = ()
    scenes: bool = False

    def clips(self, skipped: SkippedFiles, archives: ArchiveIndex | None = None) -> Iterator[Clip]:
        """Yield the clips in the order of the tables, or by original video if the layout has an order.

        Listings of archives are saved in `archives`, if given.

        Files that no row names are counted in `skipped` at the end. Raise UsageError for a table that cannot be read or
        lacks a column that the layout needs.
        """
        with scratch_folder() as folder:
            index = None
            if self.layout.members.files:
                index = MemberIndex(folder / "members", self.layout.join.by)
                yield from self._listed(index, skipped, archives or ArchiveIndex(Storage.at(folder)))
            found = self._rows(index, SeenIds(folder / "ids"))
            if self.layout.map.order:
                yield from sorted_by_group(found, folder / "clips")
            else:
                yield from (clip for clip, _ in found)
            for name in index.unused() if index else ():
                skipped.add_kind(NO_ROW if is_media(name) or "." not in PurePosixPath(name).name else name)

    def _listed(self, index: MemberIndex, skipped: SkippedFiles, archives: ArchiveIndex) -> Iterator[Clip]:
        """Fill the index, and yield a clip for each archive that cannot be listed to its end."""
        packed: set[str] = set()
        for pattern in self.layout.members.files:
            index.add(_usable(self._loose(pattern, packed, skipped), skipped))
        locations = [SEPARATOR.join(pieces) for pieces in grouped(packed)]
        for location, listing in archives.listings(self.root, locations, "members", self._members):
            damage: list[dict[str, str]] = []
            index.add(_usable(_sound_members(listing, damage), skipped))
            for bad in damage:
                name = pieces_of(location)[0]
                yield Clip(name, name, "", flaw=bad["reason"], flaw_detail=bad["detail"])
        index.end()

    def _members(self, location: str) -> Iterator[Any]:
        """Yield the members of an archive as lists; if it cannot be read to its end, an object with the reason."""
        try:
            yield from map(astuple, members_of(self.root, location))
        except BadArchive as damage:
            yield {"reason": damage.reason, "detail": str(damage)}

    def _loose(self, pattern: str, packed: set[str], skipped: SkippedFiles) -> Iterator[Member]:
        """Yield the files that a pattern matches, and put those that are archives, or pieces of one, into `packed`."""
        for path in matching_files(self.root, pattern):
            if not_unicode(path):
                skipped.add_kind(NOT_UTF8)
            elif is_archive(path):
                packed.add(path)
            else:
                yield Member(path, path)

    def _rows(self, index: MemberIndex | None, seen: SeenIds) -> Iterator[tuple[Clip, float]]:
        """Yield the clip of each row, and its place in its group."""
        rows = _RowJoin(self, index, seen)
        checked, bad = False, 0
        unseen = {column for predicate in self.predicates for column in predicate.columns}
        for path, items, packed in self._tables():
            if not self.layout.table.row_per_file:
                checked, bad = False, 0
            for number, item in enumerate(items):
                if isinstance(item, BadRow):
                    bad += 1
                    if bad == _MOST_BAD and not checked:
                        where = f"{self.root.display_uri}/{path}"
                        raise UsageError(f"{where}: its first {bad} rows cannot be read; is it a table? {item.reason}")
                    yield _unreadable(f"{path}, {item.name}", item.reason), 0
                    continue
                row_name, row = item
                if not checked:
                    self._check_columns(row, path)
                    checked = True
                unseen -= row.keys()
                yield from rows.clips(row, _RowPlace(path, row_name, number, packed))
        if unseen:
            raise UsageError(
                f"`source` {self.root.display_uri}: no row has a column {min(unseen)!r}, which `where` names"
            )

    def _tables(self) -> Iterator[tuple[str, Iterator[Row | BadRow], str]]:
        """Yield the path and the rows of each table, and how it packs its cells if these are the videos, else "".

        Raise UsageError if there are no tables.
        """
        table = self.layout.table
        if table.lines and all(self.root.stats([*table.lines])):
            yield table.lines[0], line_rows(self.root, table.lines), ""
            return
        for pattern in table.files:
            if found := sorted({*matching_files(self.root, pattern)}):
                yield from ((path, *self._read(path)) for path in found)
                return
        there = nearest_files(self.root, [*table.files, *table.lines][0])
        wanted = " or ".join(table.files) or " and ".join(table.lines)
        raise UsageError(f"`source` {self.root.display_uri}: no table {wanted} in it; {there}")

    def _read(self, path: str) -> tuple[Iterator[Row | BadRow], str]:
        if self.layout.members.columns:
            leaf, rows = rows_without_cells(self.root, path, self.layout.members.columns)
            return rows, cell_packing(leaf)
        return (row_of_file if self.layout.table.row_per_file else rows_of)(self.root, path), ""

    def _check_columns(self, row: Mapping[str, Any], path: str) -> None:
        """Raise UsageError if a column that every row must have is not in the first row of a table.

        In JSON the columns of a predicate may be in other rows alone.
        """
        needed = {*Template.parse(self.layout.map.video, "map.video").columns, *self.layout.table.explode}
        if ".json" not in path.lower():
            needed |= {column for predicate in self.predicates for column in predicate.columns}
        for column in sorted(needed - row.keys()):
            near = difflib.get_close_matches(column, row, n=1)
            hint = f"; is {near[0]!r} meant?" if near else ""
            where = f"{self.root.display_uri}/{path}"
            raise UsageError(f"{where}: no column {column!r} (it has {listed([*row])}){hint}")

    @cached_property
    def predicates(self) -> list[Predicate]:
        """Return the predicates that a row must match: the layout's own, and `wheres`."""
        own = [Predicate.parse(self.layout.map.where)] if self.layout.map.where else []
        return [*own, *self.wheres]


@dataclass(frozen=True)
class _RowPlace:
    """The place of a row: its table, its name there, and its number from 0. `packed` says how its cell is stored."""

    table: str
    name: str
    number: int
    packed: str

    def __str__(self) -> str:
        return f"{self.table}, {self.name}"

    @property
    def folder(self) -> str:
        """Return the folder of the table, "" or with a "/" at the end."""
        return self.table[: self.table.rfind("/") + 1]


class _RowJoin:
    """Makes clips of rows. `index` has the members; without it a row names a file, or has it as a cell."""

    def __init__(self, source: LayoutSource, index: MemberIndex | None, seen: SeenIds) -> None:
        self._source, self._index, self._seen = source, index, seen
        self._reader = RowReader(source.layout, source.scenes)

    def clips(self, row: Mapping[str, Any], place: _RowPlace) -> Iterator[tuple[Clip, float]]:
        """Yield the clips of a row, each with its place in its group."""
        columns = self._source.layout.table.explode
        try:
            rows = exploded(row, columns)
        except (WrongType, InvalidValue) as flaw:
            yield _unreadable(str(place), str(flaw)), 0
            return
        for number, one in enumerate(rows, 1):
            where = f"{place}, element {number}" if columns else str(place)
            try:
                if all(predicate.matches(one) for predicate in self._source.predicates):
                    mapped = self._reader.read(one)
                    yield self._clip(mapped, where, place), mapped.order
            except (WrongType, InvalidValue) as flaw:
                yield _unreadable(where, str(flaw)), 0

    def _clip(self, row: MappedRow, place: str, at: _RowPlace) -> Clip:
        flawed = first_flawed(row.caption, row.scene)
        location = row.video if self._index or at.packed else self._location(row.video, at.folder)
        path = PurePosixPath(location)
        # Rows that name a member in different ways mean one video.
        name = str(path) if self._source.layout.join.by == "name" or not self._index else path.name
        if "://" in location:
            name = split_query(location)[0]
        clip = Clip(
            name=name,
            identity=row.key or name,
            location=location,
            start_ms=row.start_ms,
            end_ms=row.end_ms,
            caption=row.caption.text,
            provenance=row.provenance,
            flaw=flawed.flaw,
            flaw_detail=flawed.flaw_detail,
            scene=row.scene.text,
            crop=row.crop,
            group=row.group,
        )
        if not self._seen.add(clip.clip_id):
            other = hashlib.sha256(f"{clip.identity}\0{place}".encode()).hexdigest()
            detail = f"{place}: an earlier row has the same key and span; give different keys, or drop one of the rows"
            return replace(clip, identity=other, flaw=DUPLICATE, flaw_detail=detail, location="")
        if at.packed:
            return replace(clip, location=at.table, offset=at.number, packed=at.packed)
        return clip if self._index is None else self._with_file(clip, self._index.find(row.video), place)

    def _location(self, video: str, folder: str) -> str:
        """Return the location of a file that a row names by its path, which is relative to its table's folder."""
        location = video if video.startswith("/") or "://" in video else f"{folder}{video}"
        try:
            locate(self._source.root, location)
        except BadLocation as mistake:
            raise InvalidValue("bad_row", f"its file cannot be used: {mistake}") from mistake
        return location

    @staticmethod
    def _with_file(clip: Clip, found: list[Member], place: str) -> Clip:
        """Return the clip with the place of its file, or with the reason why it has none."""
        found = _of_kind(clip.name, found)
        if not found:
            detail = (
                f"{place}: no file of the source is {clip.name!r}; fetch it, and plan anew, into another output folder"
            )
            return replace(clip, location="", flaw=ABSENT, flaw_detail=detail)
        member = found[0]
        if not all(_are_same(member, other) for other in found[1:]):
            both = " and ".join(_shown(one) for one in found[:_SHOWN])
            detail = f"{place}: more than one file can be {clip.name!r}: {both}; {REMEDY}"
            return replace(clip, location="", flaw="ambiguous_file", flaw_detail=detail)
        if member.flaw:
            return replace(clip, location="", flaw=member.flaw, flaw_detail=f"{place}: {member.flaw_detail}")
        return replace(
            clip,
            location=member.location,
            offset=member.offset,
            length=member.length,
            packed=member.packed,
            size=member.size,
            mtime_ns=member.mtime_ns,
        )


def _of_kind(name: str, found: list[Member]) -> list[Member]:
    """Return the members that are videos if `name` is that of a video, likewise images; videos if it tells neither."""
    if is_media(name):
        return [one for one in found if not is_media(one.name) or is_image(one.name) == is_image(name)]
    return [one for one in found if not is_image(one.name)] or found


def _are_same(one: Member, other: Member) -> bool:
    """Return whether two members are one file, or have the same size and checksum."""
    is_one = (one.location, one.offset) == (other.location, other.offset)
    return is_one or (one.packed != "" and one.packed.split(":")[1:] == other.packed.split(":")[1:])


def _sound_members(listing: Iterator[Any], damage: list[dict[str, str]]) -> Iterator[Member]:
    """Yield the members of a listing, and put the reason why it ends early into `damage`."""
    for value in listing:
        if isinstance(value, dict):
            damage.append(value)
        else:
            yield Member(*value)


def _usable(members: Iterator[Member], skipped: SkippedFiles) -> Iterator[Member]:
    """Yield the members that may be videos or images: those with such a suffix, or with none."""
    for member in members:
        base = PurePosixPath(member.name).name
        if base.startswith(".") or member.flaw == REPEATED or not (is_media(base) or "." not in base):
            skipped.add(base)
        else:
            yield member


def _unreadable(place: str, why: str) -> Clip:
    """Return the clip of a row that cannot be used. It has no file; its place identifies it."""
    name = readable_text(place, MAX_NAME)
    identity = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()
    return Clip(name, identity, "", flaw="bad_row", flaw_detail=f"{place}: {why}; {REMEDY}")


def _shown(member: Member) -> str:
    location = member.location.partition("\0")[0]
    return member.name if location == member.name else f"{member.name} in {location}"
