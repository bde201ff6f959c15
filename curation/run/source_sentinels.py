"""Sentinels: planned files whose absence shows that a source, or a folder of it, is missing as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nextscene.common.errors import DamagedRecord
from nextscene.common.parquet import translate_errors
from nextscene.common.storage import Storage, StorageFault
from nextscene.curation.sources import MISSING
from nextscene.curation.sources.reader import PlannedFolder, SentinelFile
from nextscene.shards.format.layout import PLAN

_COUNT = 16

T = TypeVar("T")
_Place = tuple[int, int]
"""(row group of the plan, row in that group)."""


def read_sentinels(out: Storage) -> tuple[SentinelFile, ...]:
    """Return up to 16 planned files, spread over the plan, reading little of it. Raise DamagedRecord."""
    with translate_errors(out, PLAN):
        file = pq.ParquetFile(out.open(PLAN))
        groups = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        places = [(group, row) for group in _spread(range(len(groups))) for row in _spread(range(groups[group]))]
        found = _read(file, places)
    return tuple(_spread(found))


def planned_in(out: Storage, folder: str) -> PlannedFolder:
    """Return what was planned from a folder and its subfolders, reading the locations of the whole plan.

    Raise StorageFault if the plan cannot be read.
    """
    clips = 0
    places: list[_Place] = []
    try:
        with translate_errors(out, PLAN):
            file = pq.ParquetFile(out.open(PLAN))
            for group in range(file.metadata.num_row_groups):
                table = file.read_row_group(group, columns=["location", "size"], use_threads=False)
                is_there = pc.and_(
                    pc.starts_with(table["location"], pattern=f"{folder}/"), pc.not_equal(table["size"], MISSING)
                )
                rows = np.flatnonzero(is_there)
                clips += len(rows)
                files = table["location"].take(rows).combine_chunks().dictionary_encode().indices
                first = rows[np.unique(files, return_index=True)[1]]
                places += [(group, row) for row in _spread(first.tolist())]
            found = _read(file, _spread(places))
    except (DamagedRecord, FileNotFoundError) as damage:
        raise StorageFault(f"cannot read {PLAN} in {out.display_uri}: {damage}") from damage
    return PlannedFolder(clips, tuple(found))


def _spread(items: Sequence[T]) -> list[T]:
    few = min(_COUNT, len(items))
    return [items[number * len(items) // few] for number in range(few)]


def _read(file: pq.ParquetFile, places: Sequence[_Place]) -> list[SentinelFile]:
    """Return the files of these rows, each once, without those that were missing when they were planned."""
    names = [field.name for field in fields(SentinelFile) if field.name in file.schema_arrow.names]
    found: dict[str, SentinelFile] = {}
    for group in sorted({group for group, _ in places}):
        table = file.read_row_group(group, columns=names, use_threads=False)
        for values in table.take([row for of, row in places if of == group]).to_pylist():
            if values["size"] != MISSING:
                found.setdefault(values["location"], SentinelFile(**values))
    return list(found.values())
