"""A table of clips: CSV, JSONL or Parquet with `video` and, where wanted, `caption`, `start`, `end` and `id`."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import UsageMistake
from curation.sources.clip import OPEN_END, Clip
from shards.storage import Storage, StorageFault, split_query

_COLUMNS = ("video", "caption", "start", "end", "id")
_MAX_SECONDS = 10**7

Row = tuple[str, Mapping[str, Any]]
"""A row and what to call it in a message, such as "row 7"."""


def clips_of_manifest(root: Storage, path: str) -> Iterator[Clip]:
    """The clips of a manifest in row order; columns it does not know are kept as provenance.

    Raises UsageMistake for a manifest without `video`, or a row whose video or span makes no sense.
    """
    where = f"{root.shown}/{path}"
    for row_name, row in READERS[PurePosixPath(path).suffix.lower()](root, path):
        yield _clip(row, f"{where}, {row_name}")


def _clip(row: Mapping[str, Any], where: str) -> Clip:
    video = _text(row.get("video"))
    if not video:
        raise UsageMistake(f"{where}: `video` is empty")
    start_ms = _milliseconds(row.get("start"), "start", where) or 0
    end = _milliseconds(row.get("end"), "end", where)
    if end is not None and end <= start_ms:
        raise UsageMistake(f"{where}: end {end / 1000} s is not after start {start_ms / 1000} s")
    others = {name: value for name, value in row.items() if name not in _COLUMNS and value not in (None, "")}
    name = split_query(video)[0]  # a query may hold a key, and says where the video is, not which it is
    clip = Clip(
        name=name,
        identity=_text(row.get("id")) or name,
        location=video,
        start_ms=start_ms,
        end_ms=OPEN_END if end is None else end,
        caption=_text(row.get("caption")),
        provenance=json.dumps(others, sort_keys=True, ensure_ascii=False, default=str) if others else "",
    )
    texts = {"video": video, "id": clip.identity, "caption": clip.caption, "another column": clip.provenance}
    for column, text in texts.items():
        # JSON can spell what no file can hold: a zero byte in a name, one half of a two-part character.
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageMistake(f"{where}: {column} is not Unicode text: {text[:80]!a}") from error
    if "\0" in video:
        raise UsageMistake(f"{where}: video {video[:80]!a} holds a zero byte")
    return clip


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _milliseconds(value: Any, column: str, where: str) -> int | None:
    if _text(value) == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageMistake(f"{where}: {column} {str(value)[:80]!r} is not a number of seconds") from error
    if not math.isfinite(seconds) or not 0 <= seconds <= _MAX_SECONDS:
        raise UsageMistake(f"{where}: {column} {value!r} is not between 0 and {_MAX_SECONDS} seconds")
    return round(seconds * 1000)


def _check_columns(columns: Collection[str], where: str) -> None:
    if "video" not in columns:
        near = difflib.get_close_matches("video", columns, n=1)
        hint = f"; is {near[0]!r} meant?" if near else ""
        raise UsageMistake(f"{where}: no column `video` (it has {', '.join(columns) or 'none'}){hint}")


def _csv(root: Storage, path: str) -> Iterator[Row]:
    where = f"{root.shown}/{path}"
    with root.open(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        try:
            table = csv.DictReader(text, strict=True)
            _check_columns(table.fieldnames or (), where)
            for row in table:
                if None in row or None in row.values():
                    raise UsageMistake(f"{where}, line {table.line_num}: not as many fields as the header names")
                yield f"line {table.line_num}", row
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageMistake(f"{where}: not a CSV file in UTF-8: {error}") from error


def _jsonl(root: Storage, path: str) -> Iterator[Row]:
    where = f"{root.shown}/{path}"
    with root.open(path) as file, io.BufferedReader(cast(io.RawIOBase, file)) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageMistake(f"{where}, line {number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UsageMistake(f"{where}, line {number}: not a JSON object")
            _check_columns(row, f"{where}, line {number}")
            yield f"line {number}", row


def _parquet(root: Storage, path: str) -> Iterator[Row]:
    where = f"{root.shown}/{path}"
    with root.open(path) as file:
        try:
            table = pq.ParquetFile(file)
            _check_columns(table.schema_arrow.names, where)
            number = 0
            for batch in table.iter_batches(batch_size=1024, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
        except (pa.ArrowException, ValueError, OSError) as error:  # Arrow raises each of them for bytes it cannot use
            if isinstance(error, OSError) and error.errno:
                raise StorageFault(f"cannot read {where}: {error.strerror}") from error
            raise UsageMistake(f"{where}: not a sound Parquet file: {str(error).splitlines()[0]}") from error


READERS: Mapping[str, Callable[[Storage, str], Iterator[Row]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
