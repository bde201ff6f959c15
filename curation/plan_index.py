"""An in-memory index of the plan: its columns as arrays sorted by clip id.

Tested in tests/curation/run/test_source_changes.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from nextscene.common.parquet import translate_errors
from nextscene.common.storage import Storage
from nextscene.curation.duplicate_clips import id64
from nextscene.curation.sources import WHOLE_FILE, Clip, Root, locate, span_text
from nextscene.curation.sources.caption import SCENE_FLAWS
from nextscene.shards.format.layout import PLAN

_AT_ONCE = 4096
_NOT_OF_CAPTIONS = SCENE_FLAWS | {"no_caption"}
_COLUMNS = (
    "clip_id",
    "position",
    "size",
    "mtime_ns",
    "location",
    "offset",
    "length",
    "name",
    "caption",
    "flaw",
    "preceding_caption",
    "provenance",
    "scene",
    "crop",
    "group",
)
_Ints = npt.NDArray[np.int64]


class PlanIndex:
    """An index of the plan's rows, numbered in the order of ids.

    Texts are kept as hashes, so that a clip takes about 70 bytes.
    """

    def __init__(self, out: Storage) -> None:
        """Raise DamagedRecord if the plan cannot be read."""
        self._out = out
        self._tars: dict[str, tuple[int, tuple[int, int]]] = {}
        self._known: set[int] = set()
        parts = [self._arrays(batch) for batch in self._batches(*_COLUMNS)]
        ids = np.concatenate([part.pop("ids") for part in parts]).view(np.uint64)
        order = np.argsort(ids, kind="stable")
        whole = {name: np.concatenate([part.pop(name) for part in parts])[order] for name in [*parts[0]]}
        self._ids = ids[order]
        self._tar = whole["tar"]
        self.positions: _Ints = whole["position"]
        self.sizes: _Ints = whole["size"]
        self.times: _Ints = whole["time"]
        self._texts, self._names, self._places = whole["text"], whole["name"], whole["place"]
        self._preceding, self._provenance = whole["preceding"], whole["provenance"]
        self._scenes = whole["scene"]

    def _arrays(self, batch: pa.RecordBatch) -> dict[str, _Ints]:
        column = {name: batch[name].to_pylist() for name in batch.schema.names}
        none = [""] * batch.num_rows
        flaws, scenes, crops, groups = (column.get(name, none) for name in ("flaw", "scene", "crop", "group"))
        tars = zip(column["location"], column["length"], column["size"], column["mtime_ns"], strict=True)
        values = {
            "position": column["position"],
            "size": column["size"],
            "time": column["mtime_ns"],
            "text": map(_text_hash, column["caption"], flaws),
            "name": map(hash, column["name"]),
            "place": map(_place_hash, column["offset"], column["length"]),
            "preceding": map(hash, column["preceding_caption"]),
            "provenance": map(_columns_hash, column["provenance"], crops, groups),
            "scene": map(_scene_hash, scenes, flaws),
            "tar": [self._tar_of(*place) for place in tars],
        }
        ids = np.array([*map(id64, column["clip_id"])], np.uint64)
        return {"ids": ids.view(np.int64), **{name: np.array([*value], np.int64) for name, value in values.items()}}

    def __len__(self) -> int:
        return len(self._ids)

    def rows_of(self, clip_ids: list[str]) -> list[int | None]:
        """Return the row number of each of these clips; None for a clip that was not planned."""
        wanted = np.array([*map(id64, clip_ids)], np.uint64)
        rows = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        return [int(row) if self._ids[row] == one else None for row, one in zip(rows, wanted, strict=True)]

    def is_known_tar(self, root: Root, path: str) -> bool:
        """Return whether a tar still has its planned size and modification time: then all its clips are unchanged."""
        if path not in self._tars:
            return False
        number, planned = self._tars[path]
        storage, file = locate(root, path)
        entry = storage.stat(file)
        is_known = entry is not None and (entry.size, entry.mtime_ns) == planned
        if is_known:
            self._known.add(number)
        return is_known

    def unseen(self, seen: npt.NDArray[np.bool_]) -> _Ints:
        """Return the rows that are neither in `seen` nor in a tar that is known to be unchanged."""
        return np.flatnonzero(~seen & ~np.isin(self._tar, [*self._known]))

    def is_recaptioned(self, row: int, clip: Clip) -> bool:
        """Return whether the clip has another caption. For a clip with a flaw, return False if the plan has no flaws
        column.
        """
        knows = self._knows_flaws or not clip.flaw
        return knows and int(self._texts[row]) != _text_hash(clip.caption, clip.flaw)

    def is_of_another_file(self, row: int, clip: Clip) -> bool:
        return clip.length == WHOLE_FILE and int(self._names[row]) != hash(clip.name)

    def is_elsewhere(self, row: int, clip: Clip) -> bool:
        """Return whether the clip's bytes are elsewhere in its tar."""
        return int(self._places[row]) != _place_hash(clip.offset, clip.length)

    def has_other_columns(self, row: int, clip: Clip) -> bool:
        return int(self._provenance[row]) != _columns_hash(clip.provenance, clip.crop, clip.group)

    def has_other_scene(self, row: int, clip: Clip) -> bool:
        return int(self._scenes[row]) != _scene_hash(clip.scene, clip.flaw)

    def is_preceded_otherwise(self, row: int, preceding: str) -> bool:
        return int(self._preceding[row]) != hash(preceding)

    def names_of(self, rows: _Ints, max_names: int) -> list[str]:
        """Return the names and spans of at most `max_names` of these rows."""
        wanted = set(self._ids[rows].tolist())
        told = self._rows_with(wanted, "name", "start_ms", "end_ms")
        return [
            f"{row['name']}{span_text(row['start_ms'], row['end_ms'])}"
            for row in islice(told, min(max_names, len(rows)))
        ]

    def digests_of(self, rows: Collection[int]) -> dict[int, str]:
        """Return row → digest of the clip's contents; "" if the plan has none."""
        row_of = {int(self._ids[row]): row for row in rows}
        return {row_of[id64(row["clip_id"])]: row.get("digest", "") for row in self._rows_with(row_of.keys(), "digest")}

    def _rows_with(self, ids: Collection[int], *columns: str) -> Iterator[dict[str, Any]]:
        for batch in self._batches("clip_id", *columns) if ids else ():
            here = [number for number, clip_id in enumerate(batch["clip_id"].to_pylist()) if id64(clip_id) in ids]
            yield from batch.take(pa.array(here, pa.int64())).to_pylist()

    def _tar_of(self, location: str, length: int, size: int, mtime_ns: int) -> int:
        """Return the number of the tar that a clip is in; -1 for a clip in a file of its own."""
        if length == WHOLE_FILE:
            return -1
        return self._tars.setdefault(location, (len(self._tars), (size, mtime_ns)))[0]

    def _batches(self, *names: str) -> Iterator[pa.RecordBatch]:
        with translate_errors(self._out, PLAN), self._out.open(PLAN) as file:
            plan = pq.ParquetFile(file)
            there = [name for name in names if name in plan.schema_arrow.names]
            self._knows_flaws = "flaw" in plan.schema_arrow.names
            # Plans with digests also have `provenance` in today's form, so that it can be compared.
            self.knows_columns = "digest" in plan.schema_arrow.names
            yield from plan.iter_batches(_AT_ONCE, columns=there, use_threads=False)


def _text_hash(caption: str, flaw: str) -> int:
    """Return a hash of caption and flaw, valid within this process. A clip left out for lack of a caption counts as
    one without a flaw, and so does one with a flaw of its scene.
    """
    return hash((caption, "" if flaw in _NOT_OF_CAPTIONS else flaw))


def _scene_hash(scene: str, flaw: str) -> int:
    return hash((scene, flaw if flaw in SCENE_FLAWS else ""))


def _columns_hash(provenance: str, crop: str, group: str) -> int:
    return hash((provenance, crop, group))


def _place_hash(offset: int, length: int) -> int:
    return hash((offset, length))
