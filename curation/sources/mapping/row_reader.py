"""The reader of rows by a layout: names, texts, span, crop, and place among the clips of the original video."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from nextscene.curation.sources.caption import NO_TEXT, ClipText, Meaning, bad_text, clip_text
from nextscene.curation.sources.cell_values import (
    MAX_SECONDS,
    InvalidValue,
    WrongType,
    abbreviated,
    check_name,
    is_absent,
    milliseconds_of,
    provenance_of,
    text_of,
)
from nextscene.curation.sources.clip import OPEN_END
from nextscene.curation.sources.mapping.layout import Layout, ListRule
from nextscene.curation.sources.mapping.row_path import RowPath, list_of
from nextscene.curation.sources.mapping.template import Template

_CLOCK = re.compile(r"(?:(\d{1,9}):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)", re.ASCII)
_MAX_FPS = 1000
_MAX_SIDE = 1 << 16
_NTSC = (15, 24, 30, 48, 60, 120, 240)
"""Frame rates that also exist divided by 1.001."""
_NTSC_WITHIN = Fraction(1, 200)
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class MappedRow:
    """The values of one row. `video` names its file; `key` is the clip's own in its data set; `order` sorts a group."""

    video: str
    key: str
    caption: ClipText
    scene: ClipText
    start_ms: int
    end_ms: int
    crop: str
    group: str
    order: float
    provenance: str


class RowReader:
    """A reader of rows by one layout. With `scenes`, the scenes of the source are read too."""

    def __init__(self, layout: Layout, scenes: bool) -> None:
        rows = layout.map
        self._map = rows
        self._video, self._key, self._group = (
            Template.parse(template, "map") for template in (rows.video, rows.id, rows.group)
        )
        self._captions, self._scenes, self._span, self._crop = (
            [*map(RowPath.parse, paths)] for paths in (rows.caption, rows.scene if scenes else (), rows.span, rows.crop)
        )
        self._order = RowPath.parse(rows.order) if rows.order else None
        self._keep = [RowPath.parse(path) for path in rows.keep]

    def read(self, row: Mapping[str, Any]) -> MappedRow:
        """Return the row's values. Raise WrongType or InvalidValue for a row that cannot be used."""
        video, key, group = (_named(name, template, row) for name, template in self._templates())
        if not video:
            raise InvalidValue("bad_row", f"map.video ({self._map.video}) gives no name")
        start_ms, end_ms = self._read_span(row)
        kept = {path.text.replace("`", ""): path.of(row) for path in self._keep}
        return MappedRow(
            video=video,
            key=key,
            caption=_first_text(self._captions, row, self._map.caption_list, "caption"),
            scene=_first_text(self._scenes, row, self._map.caption_list, "scene"),
            start_ms=start_ms,
            end_ms=end_ms,
            crop=self._read_crop(row),
            group=group,
            order=self._read_order(row),
            provenance=provenance_of(kept),
        )

    def _templates(self) -> Sequence[tuple[str, Template]]:
        return ("video", self._video), ("id", self._key), ("group", self._group)

    def _read_span(self, row: Mapping[str, Any]) -> tuple[int, int]:
        """Return start and end in milliseconds."""
        if not self._span:
            return 0, OPEN_END
        values = _values(self._span, row, "map.span", 2)
        if self._map.span_unit == "frames":
            fps = _fps(self._map.fps, row)
            start, end = _of_frames(values[0], fps, math.ceil), _of_frames(values[1], fps, math.floor)
        elif self._map.span_unit == "clock":
            start, end = _of_clock(values[0]), _of_clock(values[1])
        else:
            start, end = milliseconds_of(values[0]), milliseconds_of(values[1])
        if end is not None and end <= (start or 0):
            raise InvalidValue("bad_span", f"its end {abbreviated(values[1])} is not after {abbreviated(values[0])}")
        return start or 0, OPEN_END if end is None else end

    def _read_crop(self, row: Mapping[str, Any]) -> str:
        """Return the crop as `x,y,width,height`; "" if the row gives none."""
        if not self._crop:
            return ""
        values = _values(self._crop, row, "map.crop", 4)
        if all(map(is_absent, values)):
            return ""
        a, b, c, d = (_pixels(value) for value in values)
        left, top, right, bottom = {"xyxy": (a, b, c, d), "xxyy": (a, c, b, d), "xywh": (a, b, a + c, b + d)}[
            self._map.crop_order
        ]
        if not (left < right and top < bottom):
            raise InvalidValue(
                "bad_crop", f"its crop {abbreviated(values)} in the order {self._map.crop_order} is empty"
            )
        return f"{left},{top},{right - left},{bottom - top}"

    def _read_order(self, row: Mapping[str, Any]) -> float:
        value = self._order.of(row) if self._order else 0
        try:
            order = float(value)
        except (TypeError, ValueError, OverflowError):
            order = math.nan
        if not math.isfinite(order):
            raise InvalidValue("bad_row", f"map.order is {abbreviated(value)}, not a number")
        return order


def _named(name: str, template: Template, row: Mapping[str, Any]) -> str:
    text = template.of(row).strip()
    check_name(text, name)
    return text


def caption_reader(layout: Layout) -> Callable[[Mapping[str, Any]], ClipText]:
    """Return a function that reads the caption of a row; one that cannot be used is a flaw of the text."""
    paths = [*map(RowPath.parse, layout.map.caption)]

    def caption(row: Mapping[str, Any]) -> ClipText:
        try:
            return _first_text(paths, row, layout.map.caption_list, "caption")
        except WrongType as mistake:
            return bad_text(str(mistake))

    return caption


def _first_text(paths: Sequence[RowPath], row: Mapping[str, Any], rule: ListRule, meaning: Meaning) -> ClipText:
    """Return the first text that the paths give; a list counts as what `rule` makes of it. Raise WrongType."""
    for path in paths:
        value = path.of(row)
        if rule and isinstance(value, str) and value.lstrip().startswith("["):
            with suppress(WrongType):  # it is a text in brackets
                value = list_of(value)
        if isinstance(value, (list, tuple)):
            value = _of_list([text_of(element) for element in value], rule, path)
        if (text := clip_text(text_of(value), meaning)) != NO_TEXT:
            return text
    return NO_TEXT


def _of_list(texts: Sequence[str], rule: ListRule, path: RowPath) -> str:
    given = [text for text in texts if text.strip()]
    if not given:
        return ""
    if not rule:
        raise WrongType(f"{path.text} is a list of {len(texts)}; say in map.caption_list what becomes of it")
    return {"first": lambda: given[0], "longest": lambda: max(given, key=len), "join": lambda: " ".join(given)}[rule]()


def _values(paths: Sequence[RowPath], row: Mapping[str, Any], name: str, count: int) -> list[Any]:
    """Return `count` values: one for each path, or the list that a single path gives."""
    values: list[Any] = [path.of(row) for path in paths]
    if len(paths) == 1 and count == 2 and not isinstance(values[0], (list, tuple, str)):
        return [values[0], None]
    if len(paths) == 1:
        values = [None] * count if is_absent(values[0]) else [*list_of(values[0])]
    if len(values) != count:
        raise WrongType(f"{name} gives {len(values)} values ({abbreviated(values)}), not {count}")
    return values


def _of_clock(value: Any) -> int | None:
    """Return a time of hours, minutes and seconds, or of seconds alone, in milliseconds."""
    if isinstance(value, str) and (found := _CLOCK.fullmatch(value.strip())):
        hours, minutes, seconds = found.groups()
        whole = Fraction(seconds.replace(",", "."))
        if (int(minutes) >= _SECONDS and hours) or whole >= _SECONDS:
            raise InvalidValue("bad_span", f"{abbreviated(value)} is not a time of a clock")
        return _milliseconds((int(hours or 0) * _SECONDS + int(minutes)) * _SECONDS + whole, value, round)
    return milliseconds_of(value)


def _of_frames(value: Any, fps: Fraction, to_whole: Any) -> int | None:
    """Return the time of a frame in whole milliseconds: for a start not before the frame, for an end not after it."""
    if is_absent(value):
        return None
    try:
        frame = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise WrongType(f"{abbreviated(value)} is not the number of a frame") from None
    return _milliseconds(frame / fps, value, to_whole)


def _milliseconds(seconds: Fraction, value: Any, to_whole: Any) -> int:
    """Return seconds in whole milliseconds. Raise InvalidValue for a time that no video has."""
    if not 0 <= seconds <= MAX_SECONDS:
        raise InvalidValue("bad_span", f"{abbreviated(value)} is not a time between 0 and {MAX_SECONDS} seconds")
    return int(to_whole(seconds * 1000))


def _fps(given: str, row: Mapping[str, Any]) -> Fraction:
    """Return the frame rate; one that is rounded, such as 29.97, as the exact one that is meant, 30000/1001."""
    try:
        value: Any = Fraction(given)
    except ValueError:
        value = RowPath.parse(given).of(row)
    try:
        fps = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise WrongType(f"map.fps is {abbreviated(value)}, not a number of frames a second") from None
    if not 0 < fps <= _MAX_FPS:
        raise InvalidValue("bad_span", f"its fps {abbreviated(value)} is not between 0 and {_MAX_FPS}")
    ntsc = Fraction(math.ceil(fps) * 1000, 1001)
    return ntsc if math.ceil(fps) in _NTSC and abs(fps - ntsc) < _NTSC_WITHIN else fps


def _pixels(value: Any) -> int:
    try:
        number = round(float(value))
    except (TypeError, ValueError, OverflowError):
        raise WrongType(f"{abbreviated(value)} is not a number of pixels") from None
    if not 0 <= number <= _MAX_SIDE:
        raise InvalidValue("bad_crop", f"{abbreviated(value)} is not between 0 and {_MAX_SIDE} pixels")
    return number
