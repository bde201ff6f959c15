"""Several sources as one: the clips of one after the other, each with the name of its source.

Tested in tests/curation/sources/test_several.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from nextscene.common.config_loader import SettingsError, from_tree, load, setting
from nextscene.common.errors import UsageError
from nextscene.common.predicate import Predicate
from nextscene.curation.sources import Reading, Source
from nextscene.curation.sources.clip import SEVERAL, Clip, Root, Roots, location_in
from nextscene.curation.sources.mapping.layout import Layout
from nextscene.curation.sources.presets import split_preset
from nextscene.curation.sources.selection import NO_SEED, Selection

_BETWEEN = "\n"
"""The character between several sources where they are recorded."""


@dataclass(frozen=True)
class SourceSettings:
    """One of several sources, as a table of a file of sources has it."""

    path: str = setting("", "The source.")
    name: str = setting("", "Its name; by default that of its preset or of its folder or file.")
    map: str = setting("", "A TOML file that says how it is laid out.")
    where: str = setting("", "Predicate of its clips to use.")
    limit: int = setting(0, "Clips to take of it; 0 means all.")
    sample_seed: int = setting(NO_SEED, "Seed by which the clips of limit are drawn by lot; -1 takes the first.")

    def __post_init__(self) -> None:
        _ = self.selection  # raises now if it is not valid

    @property
    def selection(self) -> Selection:
        return Selection(Predicate.parse(self.where) if self.where else None, self.limit, self.sample_seed)


@dataclass(frozen=True)
class SourceFile:
    """The contents of a file of several sources."""

    source: tuple[SourceSettings, ...] = setting((), "The sources, in their order.")

    @staticmethod
    def read(file: Path) -> SourceFile:
        """Return the sources that a file names, with the text of their maps. Raise SettingsError."""
        found = load(SourceFile, file, {}).source
        if not found or not all(one.path for one in found):
            raise SettingsError(f"{file}: give each source as a table [[source]] with its path")
        maps = [Layout.read(file.parent / one.map).text if one.map else "" for one in found]
        return SourceFile(tuple(replace(one, map=text) for one, text in zip(found, maps, strict=True)))

    @staticmethod
    def of_text(text: str) -> SourceFile:
        """Return what `text` recorded; paths are recorded elsewhere."""
        return from_tree(SourceFile, json.loads(text), "sources") if text else SourceFile()

    @property
    def locations(self) -> str:
        return join_locations(one.path for one in self.source)

    @property
    def text(self) -> str:
        """Return all that decides the clips as one line, to record it with a plan and to compare it."""
        tables = [{name: value for name, value in asdict(one).items() if name != "path"} for one in self.source]
        return json.dumps({"source": tables}, sort_keys=True, ensure_ascii=False)


def join_locations(locations: Iterable[str]) -> str:
    """Return the locations of several sources as one text, which `source_at` reads. Raise UsageError.

    None of them may have a line end.
    """
    given = tuple(locations)
    for one in given:
        if one != one.strip(_BETWEEN):
            raise UsageError(f"`source` {one!r} begins or ends with white space; give it without")
        if _BETWEEN in one:
            raise UsageError(f"`source` {one!r} has a line end in its name; rename it")
    return _BETWEEN.join(given)


def source_at(locations: str, map_text: str = "", sources: str = "") -> Source:
    """Return the source at a location, or several sources as one. Raise UsageError for one that cannot be used.

    `map_text` is the layout of those without a preset; `sources` is the text of a SourceFile.
    """
    places = locations.split(_BETWEEN)
    settings = SourceFile.of_text(sources).source or (SourceSettings(),) * len(places)
    if len(settings) != len(places):
        raise UsageError(f"`sources` has {len(settings)} tables, for {len(places)} sources; give as many")
    parts = [
        replace(Source.at(place, one.map or _map_of(place, map_text, len(places))), selection=one.selection)
        for place, one in zip(places, settings, strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    names = tuple(one.name or _name(part) for one, part in zip(settings, parts, strict=True))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"two sources are called {twice[0]!r}; give them names of their own in a file of `sources`")
    return SourceList(parts[0].root, parts[0].path, listed=tuple(parts), names=names)


def expected_source(locations: str) -> Source:
    """Return the source or sources that were at locations where something is missing now. Raise BadLocation."""
    parts = tuple(map(Source.expected, locations.split(_BETWEEN)))
    return parts[0] if len(parts) == 1 else SourceList(parts[0].root, parts[0].path, listed=parts)


def _map_of(place: str, map_text: str, count: int) -> str:
    return "" if count > 1 and split_preset(place)[0] else map_text


def _name(source: Source) -> str:
    return source.preset or PurePosixPath(source.path or source.root.display_uri).stem


@dataclass(frozen=True)
class SourceList(Source):
    """Several sources as one. The clips of the first have the ids that they would have alone.

    Names, ids and groups of the others begin with the name of their source, so that equal ones stay apart, and adding a
    source changes no clip of those before it.
    """

    listed: tuple[Source, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Source, ...]:
        return tuple(replace(part, out=self.out) for part in self.listed)

    @property
    def display_uri(self) -> str:
        return SEVERAL.join(part.display_uri for part in self.parts)

    @property
    def recorded_uri(self) -> str:
        return join_locations(part.display_uri for part in self.parts)

    @property
    def roots(self) -> Root:
        return Roots(tuple(part.root for part in self.parts))

    @property
    def leaves_gaps(self) -> bool:
        return super().leaves_gaps or any(part.leaves_gaps for part in self.listed)

    @property
    def has_order(self) -> bool:
        return all(part.has_order for part in self.parts)

    def _matching(self, reading: Reading, wheres: tuple[Predicate, ...]) -> Iterator[Clip]:
        without = reading.folder_filter
        for number, part in enumerate(self.parts):
            inside = without.in_source(number) if without and not part.selection.limit else None
            for clip in part.selected(replace(reading, folder_filter=inside), wheres):
                yield self._named(clip, number)

    def _named(self, clip: Clip, number: int) -> Clip:
        if not number:
            return clip
        name = self.names[number]
        return replace(
            clip,
            name=f"{name}:{clip.name}",
            identity=f"{name}:{clip.identity}",
            group=clip.group and f"{name}:{clip.group}",
            location=location_in(number, clip.location),
        )
