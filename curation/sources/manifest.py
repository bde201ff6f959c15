"""A manifest as a source: CSV, JSON lines or Parquet with `video` and, optionally, `caption`, `start`, `end`, `id`.

Tested in tests/curation/sources/test_sources.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, TypeVar

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage, split_query
from nextscene.common.text import MAX_NAME, readable_text
from nextscene.curation.sources.caption import NO_TEXT, REMEDY, ClipText, clip_text, first_flawed
from nextscene.curation.sources.cell_values import (
    InvalidValue,
    WrongType,
    check_name,
    id_of,
    milliseconds_of,
    provenance_of,
    text_of,
    video_of,
)
from nextscene.curation.sources.clip import OPEN_END, Clip
from nextscene.curation.sources.columns import COLUMNS, SCENE, SceneColumn
from nextscene.curation.sources.tables import READERS

T = TypeVar("T")


def clips_of_manifest(root: Storage, path: str, scenes: bool = False) -> Iterator[Clip]:
    """Yield the clips of a manifest in row order; unknown columns are kept as provenance, and so is `scene` unless
    `scenes` are read.

    Raise UsageError for a table without `video` or with a column that was probably meant for a known one. Raise it also
    for a row with a value of the wrong type, without a video, or with an end that is not after its start. A row with a
    value that cannot be used or written gives a clip that fails.
    """
    where, column = f"{root.display_uri}/{path}", SceneColumn()
    for row_name, row in READERS[PurePosixPath(path).suffix.lower()](root, path):
        if scenes:
            column.check(row, f"{where}, {row_name}")
        yield _clip(row, f"{where}, {row_name}", row_name, scenes)


def _clip(row: Mapping[str, Any], where: str, row_name: str, scenes: bool) -> Clip:
    def cell(column: str, read: Callable[[Any], T]) -> T:
        try:
            return read(row.get(column))
        except WrongType as mistake:
            raise UsageError(f"{where}: {column} {mistake}") from mistake
        except InvalidValue as flaw:
            raise InvalidValue(flaw.reason, f"its {column} {flaw}") from flaw

    video = cell("video", video_of).strip()
    if not video:
        raise UsageError(f"{where}: `video` is empty")
    given_id = cell("id", id_of).strip()
    caption = clip_text(cell("caption", text_of))
    scene = clip_text(cell(SCENE, text_of), "scene") if scenes else NO_TEXT
    flawed = first_flawed(caption, scene)
    name = split_query(video)[0]  # a query may contain a key, and says where the video is, not which one it is
    try:
        check_name(video, "video")
        check_name(given_id, "id")
        start_ms = cell("start", milliseconds_of) or 0
        end = cell("end", milliseconds_of)
    except InvalidValue as flaw:
        return _clip_without_location(row, name, caption.text, _flawed(flaw, row_name))
    if end is not None and end <= start_ms:
        raise UsageError(f"{where}: end {end / 1000} s is not after start {start_ms / 1000} s; mend or remove that row")
    provenance = ""
    read = (*COLUMNS, SCENE) if scenes else COLUMNS
    try:
        provenance = provenance_of({name: value for name, value in row.items() if name not in read})
    except InvalidValue as flaw:
        flawed = _flawed(flaw, row_name)
    return Clip(
        name=name,
        identity=given_id or name,
        location=video,
        start_ms=start_ms,
        end_ms=OPEN_END if end is None else end,
        caption=caption.text,
        provenance=provenance,
        flaw=flawed.flaw,
        flaw_detail=flawed.flaw_detail,
        scene=scene.text,
    )


def _flawed(flaw: InvalidValue, row_name: str) -> ClipText:
    return ClipText(flaw=flaw.reason, flaw_detail=f"{row_name}: {flaw}; {REMEDY}")


def _clip_without_location(row: Mapping[str, Any], name: str, caption: str, flawed: ClipText) -> Clip:
    """Return the clip of a row whose file or span cannot be used. It has no location; the row's values identify it."""
    said = [
        row[column] if isinstance(row.get(column), _SCALARS) else None for column in ("id", "video", "start", "end")
    ]
    return Clip(
        name=readable_text(name, MAX_NAME),
        identity=hashlib.sha256(ascii(said).encode()).hexdigest(),
        location="",
        caption=caption,
        flaw=flawed.flaw,
        flaw_detail=flawed.flaw_detail,
    )


_SCALARS = (str, int, float, Decimal)
