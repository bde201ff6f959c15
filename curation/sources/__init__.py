"""Sources of clips: a folder, a manifest, tars and zips of samples, a single file, or a data set of a known layout.

Every kind yields its clips one at a time, in an order that depends on the input alone. The memory used does not grow
with the number of clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, islice
from pathlib import PurePosixPath

from nextscene.common.errors import UsageError
from nextscene.common.predicate import Predicate
from nextscene.common.storage import BadLocation, Entry, Storage
from nextscene.common.typed_path import check_typed_path
from nextscene.curation.sources.archive_index import ArchiveIndex
from nextscene.curation.sources.archives import clips_of_archives
from nextscene.curation.sources.caption import LinesRule, of_lines
from nextscene.curation.sources.clip import (
    MEDIA_SUFFIXES,
    MISSING,
    OPEN_END,
    SIZE_NOT_READ,
    WHOLE_FILE,
    Clip,
    Root,
    locate,
    span_text,
    split_location,
)
from nextscene.curation.sources.digest import Region, digests
from nextscene.curation.sources.digest import region_of as region_in
from nextscene.curation.sources.folder import FolderFilter, clip_of_file, clips_of_folder
from nextscene.curation.sources.manifest import clips_of_manifest
from nextscene.curation.sources.mapping.clips import LayoutSource
from nextscene.curation.sources.mapping.layout import Layout
from nextscene.curation.sources.presets import likely_presets, preset, split_preset
from nextscene.curation.sources.selection import EVERYTHING, Selection, matching
from nextscene.curation.sources.skipped_files import SkippedFiles
from nextscene.curation.sources.tables import READERS
from nextscene.curation.sources.tar import clips_of_tar
from nextscene.curation.sources.zipped import clips_of_zip

__all__ = [
    "MISSING",
    "OPEN_END",
    "SIZE_NOT_READ",
    "WHOLE_FILE",
    "Clip",
    "Region",
    "Root",
    "SkippedFiles",
    "Source",
    "digests",
    "locate",
    "span_text",
]

_STAT_AT_ONCE = 512
_ARCHIVES = {".tar": clips_of_tar, ".zip": clips_of_zip}


@dataclass(frozen=True)
class Reading:
    """One reading of a source: where its skipped files are counted, and what is left out or read too."""

    skipped: SkippedFiles
    folder_filter: FolderFilter | None = None
    scenes: bool = False
    archives: ArchiveIndex | None = None


@dataclass(frozen=True)
class Source:
    """A place that has clips. Relative locations are relative to `root`; `path` is "" for a folder.

    `out` is where the dataset is built. No link in a source folder may lead to it. A folder with a `layout` is read by
    it; `preset` is the layout's name, "" if it has none. `selection` says which of the clips are taken, and
    `caption_lines` what becomes of captions of several lines.
    """

    root: Storage
    path: str
    out: Storage | None = None
    preset: str = ""
    layout: Layout | None = None
    selection: Selection = EVERYTHING
    caption_lines: LinesRule = "keep"

    @staticmethod
    def at(location: str, map_text: str = "") -> Source:
        """Return the source at a location, with the layout of its preset or of `map_text` if there is one.

        Raise UsageError if it does not exist or is not a valid location.
        """
        name, place = split_preset(location)
        if name and map_text:
            raise UsageError(f"`source` {location} has the layout of the preset {name}; leave `map` out, or {name}:")
        try:
            here = Storage.at(check_typed_path(place))
        except BadLocation as mistake:
            raise UsageError(f"`source` {mistake}") from mistake
        layout = preset(name) if name else Layout.of_text(map_text) if map_text else None
        if layout and not (layout.table.given or layout.members.files):
            raise UsageError("`map`: it names no files; give table.files, table.lines or members.files")
        if here.is_folder():
            return Source(here, "", preset=name, layout=layout)
        if layout:
            raise UsageError(f"`source` {location}: no such folder; a layout describes a folder")
        parent, name = split_location(here.uri)
        root = Storage.at(parent)
        if not name or root.stat(name) is None:
            raise UsageError(f"`source` {here.display_uri}: no such file or folder")
        return Source(root, name)

    @staticmethod
    def expected(location: str) -> Source:
        """Return the source that was at a location where nothing exists now, by its suffix. Raise BadLocation."""
        preset_name, location = split_preset(location)
        here = Storage.at(location)
        parent, name = split_location(here.uri)
        is_file = PurePosixPath(name).suffix.lower() in {*READERS, *_ARCHIVES, *MEDIA_SUFFIXES}
        return Source(Storage.at(parent), name) if is_file else Source(here, "", preset=preset_name)

    @property
    def display_uri(self) -> str:
        place = f"{self.root.display_uri}/{self.path}" if self.path else self.root.display_uri
        return f"{self.preset}:{place}" if self.preset else place

    @property
    def recorded_uri(self) -> str:
        """Return what a dataset records of its source, from which `at` makes the same source again."""
        return self.display_uri

    @property
    def parts(self) -> tuple[Source, ...]:
        """Return the single sources that it consists of."""
        return (self,)

    @property
    def roots(self) -> Root:
        """Return that by which `locate` finds the files of the clips."""
        return self.root

    @property
    def is_manifest(self) -> bool:
        return PurePosixPath(self.path).suffix.lower() in READERS

    @property
    def leaves_gaps(self) -> bool:
        """Return whether clips may be left out between others, so that a clip's neighbor is not the one before it."""
        selection, layout = self.selection, self.layout
        return bool(selection.wheres) or selection.reads_twice or bool(layout and layout.map.where)

    @property
    def has_order(self) -> bool:
        """Return whether the order of the clips is that of rows."""
        return self.is_manifest or (self.layout is not None and self.layout.table.given)

    def clips(
        self,
        skipped: SkippedFiles | None = None,
        digests: bool = True,
        scenes: bool = False,
        archives: ArchiveIndex | None = None,
    ) -> Iterator[Clip]:
        """Yield all clips in source order, each with size, time and digest of its file. Raise UsageError at a bad row.

        Files that give no clip are counted in `skipped` while the clips are drawn. Without `digests` no digests are
        computed and no contents are read. With `scenes` the clips have the scenes of the source, else a column `scene`
        is provenance. Listings of archives are saved in `archives`, if given.
        """
        reading = Reading(skipped or SkippedFiles(), None, scenes, archives)
        found = _with_stats(self, self.selected(reading))
        return _with_digests(self, found) if digests else found

    def scan(self, is_known: Callable[[str], bool], complete: bool = False, scenes: bool = False) -> Iterator[Clip]:
        """Yield the clips as cheaply as possible, to compare them with those of a plan. Raise the errors of `clips`.

        Contents of videos are not read, nor are archives for which `is_known` is true. In an object store, files are
        not looked up, so that sizes are SIZE_NOT_READ, and captions beside videos are not read. If `complete`, both are
        done there too. `scenes` is as for `clips`.
        """
        folder_filter = None
        if not self.selection.limit:  # which needs the clips of all tars
            folder_filter = FolderFilter(is_known, captions=complete or self.root.is_local)
        reading = Reading(SkippedFiles(), folder_filter, scenes)
        return _with_stats(self, self.selected(reading), only_local=not complete)

    @cached_property
    def likely_layout(self) -> str:
        """Return what a folder without a layout looks like, as a sentence with the remedy; "" for nothing known."""
        if self.path or self.layout or not (names := likely_presets(self.root)):
            return ""
        titles = " or ".join(preset(name).about.title for name in names)
        return f"it looks like {titles}: name it {' or '.join(f'{name}:{self.root.display_uri}' for name in names)}"

    def region_of(self, clip: Clip) -> Region | None:
        """Return the part of a clip's file that planning reads. None in an object store, where reading costs time and
        money, and for a missing file.
        """
        storage, path = locate(self.roots, clip.location)
        files = storage.local_files(path)
        return region_in(files, clip) if files and clip.size != MISSING else None

    def selected(self, reading: Reading, wheres: tuple[Predicate, ...] = ()) -> Iterator[Clip]:
        """Yield the clips that the selection takes of those for which `wheres` are true, too.

        A draw reads the source twice, and what is skipped counts once.
        """
        every = (*self.selection.wheres, *wheres)
        readings = [replace(reading, skipped=SkippedFiles())] if self.selection.reads_twice else []
        passes = iter([*readings, reading])
        return self.selection.limited(lambda: self._matching(next(passes), every))

    def _matching(self, reading: Reading, wheres: tuple[Predicate, ...]) -> Iterator[Clip]:
        if self.layout and self.layout.table.given:
            rows = LayoutSource(self.root, self.layout, wheres, reading.scenes)
            return map(self._with_lines, rows.clips(reading.skipped, reading.archives))
        found: Iterator[Clip] = map(self._with_lines, self._found(reading))
        for where in wheres:
            found = matching(found, where, self.display_uri)
        return found

    def _with_lines(self, clip: Clip) -> Clip:
        caption = of_lines(clip.caption, self.caption_lines)
        return clip if caption is clip.caption else replace(clip, caption=caption)

    def _found(self, reading: Reading) -> Iterator[Clip]:
        suffix = PurePosixPath(self.path).suffix.lower()
        skipped, scenes, without = reading.skipped, reading.scenes, reading.folder_filter
        is_known = without.is_known if without else _none_is_known
        if self.layout:
            return clips_of_archives(self.root, self.layout, skipped, is_known, scenes, reading.archives)
        if not self.path:
            return clips_of_folder(self.root, skipped, self.out, without, scenes)
        if self.is_manifest:
            return clips_of_manifest(self.root, self.path, scenes)
        if suffix in _ARCHIVES:
            return iter(()) if is_known(self.path) else _ARCHIVES[suffix](self.root, self.path, skipped, scenes)
        if suffix in MEDIA_SUFFIXES:
            return clip_of_file(self.root, self.path)
        raise UsageError(
            f"`source` {self.display_uri}: not a folder, a video, a tar, a zip, or one of {', '.join(READERS)}"
        )


def _none_is_known(path: str) -> bool:
    return False


def _with_stats(source: Source, clips: Iterator[Clip], only_local: bool = False) -> Iterator[Clip]:
    numbers = count(1)
    while batch := list(islice(clips, _STAT_AT_ONCE)):
        places = [_place(source, clip, number) for clip, number in zip(batch, numbers, strict=False)]
        entries: dict[tuple[Storage, str], Entry | None] = {}
        looked = [storage for storage in dict.fromkeys(at for at, _ in places) if storage.is_local or not only_local]
        for storage in looked:
            paths = list(dict.fromkeys(path for of, path in places if of == storage))
            entries |= zip(((storage, path) for path in paths), storage.stats(paths), strict=True)
        for clip, place in zip(batch, places, strict=True):
            if place not in entries:
                yield replace(clip, size=SIZE_NOT_READ)
                continue
            entry = entries[place]
            yield clip if entry is None else replace(clip, size=entry.size, mtime_ns=entry.mtime_ns)


def _with_digests(source: Source, clips: Iterator[Clip]) -> Iterator[Clip]:
    while batch := list(islice(clips, _STAT_AT_ONCE)):
        regions = [source.region_of(clip) for clip in batch]
        known = digests(filter(None, regions))
        for clip, where in zip(batch, regions, strict=True):
            yield replace(clip, digest=known[where]) if where else clip


def _place(source: Source, clip: Clip, number: int) -> tuple[Storage, str]:
    try:
        return locate(source.roots, clip.location)
    except BadLocation as mistake:
        raise UsageError(
            f"`source` {source.display_uri}: clip number {number} has a location that cannot be used: {mistake}"
        ) from mistake
