"""A table of clips: CSV, JSON lines or Parquet with `video` and, where wanted, `caption`, `start`, `end` and `id`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, TypeVar

from curation.errors import UsageMistake
from curation.sources.caption import MAX_TEXT_BYTES, caption_of, not_unicode
from curation.sources.clip import OPEN_END, Clip
from curation.sources.columns import COLUMNS
from curation.sources.tables import READERS
from curation.sources.values import NotMeant, id_of, milliseconds_of, provenance_of, shown, text_of, video_of
from shards.storage import Storage, split_query

T = TypeVar("T")


def clips_of_manifest(root: Storage, path: str) -> Iterator[Clip]:
    """The clips of a manifest in row order; columns it does not know are kept as provenance.

    Raises UsageMistake for a table without `video` or with columns that are mistaken for others, and for a row with a
    value of another type than its column has, or whose video or span makes no sense. A caption that cannot be used is
    the clip's own end.
    """
    where = f"{root.shown}/{path}"
    for row_name, row in READERS[PurePosixPath(path).suffix.lower()](root, path):
        yield _clip(row, f"{where}, {row_name}")


def _clip(row: Mapping[str, Any], where: str) -> Clip:
    def cell(column: str, read: Callable[[Any], T]) -> T:
        try:
            return read(row.get(column))
        except NotMeant as mistake:
            raise UsageMistake(f"{where}: {column} {mistake}") from mistake

    video = cell("video", video_of).strip()
    if not video:
        raise UsageMistake(f"{where}: `video` is empty")
    start_ms = cell("start", milliseconds_of) or 0
    end = cell("end", milliseconds_of)
    if end is not None and end <= start_ms:
        raise UsageMistake(f"{where}: end {end / 1000} s is not after start {start_ms / 1000} s")
    caption = caption_of(cell("caption", text_of))
    name = split_query(video)[0]  # a query may hold a key, and says where the video is, not which it is
    clip = Clip(
        name=name,
        identity=cell("id", id_of).strip() or name,
        location=video,
        start_ms=start_ms,
        end_ms=OPEN_END if end is None else end,
        caption=caption.text,
        provenance=_provenance(row, where),
        flaw=caption.flaw,
        flaw_detail=caption.flaw_detail,
    )
    for column, text in {"video": video, "id": clip.identity, "another column": clip.provenance}.items():
        # JSON can spell what no file can hold: a zero byte in a name, one half of a two-part character.
        if wrong := not_unicode(text):
            raise UsageMistake(f"{where}: {column} is not Unicode text: {wrong}: {text[:80]!a}")
        if "\0" in text:
            raise UsageMistake(f"{where}: {column} {text[:80]!a} holds a zero byte")
    return clip


def _provenance(row: Mapping[str, Any], where: str) -> str:
    others = {name: value for name, value in row.items() if name not in COLUMNS}
    try:
        provenance = provenance_of(others)
    except NotMeant as mistake:
        raise UsageMistake(f"{where}: values {mistake}") from mistake
    if len(provenance) > MAX_TEXT_BYTES:
        longest = max(others, key=lambda name: len(provenance_of({name: others[name]})))
        raise UsageMistake(
            f"{where}: the further columns, which are kept as provenance, come to {len(provenance):,} letters, and"
            f" {MAX_TEXT_BYTES:,} are the most; drop {shown(longest)}"
        )
    return provenance
