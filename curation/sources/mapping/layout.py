"""A layout: where a data set has its files and tables, the meaning of its columns, and the join of rows and files.

It is data: a TOML file of the tables below, either a preset or a user's own. docs/sources.md explains it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from nextscene.common.config_loader import SettingsError, from_tree, load, setting
from nextscene.common.predicate import Predicate
from nextscene.curation.sources.mapping.row_path import RowPath
from nextscene.curation.sources.mapping.template import Template

ListRule = Literal["", "first", "longest", "join"]
JoinKey = Literal["name", "basename", "stem"]

_SPAN, _CROP = 2, 4


@dataclass(frozen=True)
class About:
    """A preset's description of itself. `like` are files that only a folder of this layout has."""

    title: str = setting("", "Name of the data set.")
    layout: str = setting("", "How its layout is known, and since when.")
    like: tuple[str, ...] = setting((), "Patterns of files by which a folder of this layout is recognized.")


@dataclass(frozen=True)
class MemberFiles:
    """The files that have the videos."""

    files: tuple[str, ...] = setting(
        (), "Patterns of archives, or of the videos themselves; without them rows name files by their paths."
    )
    columns: tuple[str, ...] = setting(
        (), "Columns of Parquet tables whose cells are the videos; of several, the first that a table has."
    )


@dataclass(frozen=True)
class TableFiles:
    """The tables, all read one after another."""

    files: tuple[str, ...] = setting((), "Patterns of tables; of several patterns, the first that matches is used.")
    lines: tuple[str, ...] = setting(
        (), "Text files read side by side, instead of tables: line N of each is row N, its column the file's name."
    )
    row_per_file: bool = setting(
        False, "Each file is one JSON object, and one row; its column key is the file's name without .json."
    )
    explode: tuple[str, ...] = setting((), "Columns with a list in each row; each element becomes a row of its own.")

    @property
    def given(self) -> bool:
        """Return whether there are any."""
        return bool(self.files or self.lines)


@dataclass(frozen=True)
class RowMap:
    """The meaning of a row's values. They are paths into the row, or templates where that is said."""

    video: str = setting("{video}", "Template of the file's name.")
    caption: tuple[str, ...] = setting(("caption",), "Paths to the caption; the first with a text counts.")
    caption_list: Literal["", "first", "longest", "join"] = setting(
        "", "What a list of captions becomes: first, longest, or join."
    )
    scene: tuple[str, ...] = setting((), "Paths to the scene before the clip; the first with a text counts.")
    span: tuple[str, ...] = setting((), "Paths to start and end, or one path to both.")
    span_unit: Literal["seconds", "clock", "frames"] = setting(
        "seconds", "Unit of the span: seconds, clock (1:02:03.5), or frames."
    )
    fps: str = setting("", "Path to the frames a second by which a span of frames is read, or a number.")
    crop: tuple[str, ...] = setting((), "Paths to the four edges of the picture in pixels, or one path to all.")
    crop_order: Literal["xyxy", "xxyy", "xywh"] = setting(
        "xyxy", "Order of the four: xyxy (left, top, right, bottom), xxyy, or xywh."
    )
    id: str = setting("", "Template of the clip's key in its data set.")
    group: str = setting("", "Template of the name of the original video.")
    order: str = setting("", "Path to the clip's place among those of its original video.")
    keep: tuple[str, ...] = setting((), "Columns that are kept as provenance.")
    where: str = setting("", "Predicate of the rows to use.")


@dataclass(frozen=True)
class Join:
    """The way from a row to its file among the members."""

    by: Literal["name", "basename", "stem"] = setting(
        "name", "What must be equal: name (the path), basename, or stem (the name without suffix)."
    )


@dataclass(frozen=True)
class Layout:
    """All five tables. Raise SettingsError for one that cannot be used."""

    about: About = field(default_factory=About)
    members: MemberFiles = field(default_factory=MemberFiles)
    table: TableFiles = field(default_factory=TableFiles)
    map: RowMap = field(default_factory=RowMap)
    join: Join = field(default_factory=Join)

    def __post_init__(self) -> None:
        rows = self.map
        for name, template in {"video": rows.video, "id": rows.id, "group": rows.group}.items():
            Template.parse(template, f"map.{name}")
        fps = () if _is_number(rows.fps) else (rows.fps,)
        for path in filter(None, (*rows.caption, *rows.scene, *rows.span, *rows.crop, *rows.keep, rows.order, *fps)):
            RowPath.parse(path)
        if rows.where:
            Predicate.parse(rows.where)
        if len(rows.span) > _SPAN:
            raise ValueError(f"map.span has {len(rows.span)} paths; give start and end, or one path to both")
        if len(rows.crop) not in (0, 1, _CROP):
            raise ValueError(f"map.crop has {len(rows.crop)} paths; give four, or one path to all")
        if rows.span and (rows.span_unit == "frames") != bool(rows.fps):
            raise ValueError('map.fps belongs to map.span_unit = "frames"; give both or neither')
        if not self.table.given and replace(rows, caption=(), caption_list="") != replace(RowMap(), caption=()):
            raise ValueError("without a table, [map] has caption and caption_list alone; name a table in table.files")
        if self.members.columns and (self.members.files or self.table.lines or self.table.row_per_file):
            raise ValueError("members.columns is about cells of Parquet tables, named in table.files, and nothing else")
        if self.table.files and self.table.lines:
            raise ValueError("table.files and table.lines are two kinds of table; give one of them")
        if len({PurePosixPath(path).stem for path in self.table.lines}) < len(self.table.lines):
            raise ValueError("table.lines has two files with one name, and columns have their names; rename one")

    @staticmethod
    def read(file: Path) -> Layout:
        """Return the layout in a TOML file. Raise SettingsError."""
        return load(Layout, file, {})

    @staticmethod
    def of_text(text: str) -> Layout:
        """Return the layout that `text` gave. Raise SettingsError."""
        try:
            return from_tree(Layout, json.loads(text), "map")
        except ValueError as error:
            raise SettingsError(f"map: not as it was recorded: {error}") from error

    @property
    def text(self) -> str:
        """Return all that decides the clips as one line, to record it with a plan and to compare it."""
        tables: dict[str, Any] = asdict(self)
        del tables["about"]
        return json.dumps(tables, sort_keys=True, ensure_ascii=False)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
