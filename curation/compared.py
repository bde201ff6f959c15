"""The source as it is now beside the plan: what is new in it, gone, or other than it was planned.

A plan stands for good, so nothing of this becomes part of the dataset; it is there to be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import UsageMistake
from curation.recorded import Recorded
from curation.sources import MISSING, WHOLE_FILE, Clip, Source
from shards.layout import PLAN
from shards.parquet import reading
from shards.storage import BadLocation, Storage, StorageFault

_AT_ONCE = 4096
_EXAMPLES = 2
_NO_CAPTION = "no_caption"


@dataclass
class Difference:
    """Some clips, counted, and the names of the first."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.names) < _EXAMPLES and name not in self.names:
            self.names.append(name)


@dataclass(frozen=True)
class Compared:
    """How the source differs from the plan. `unread` is why it could not be compared, "" where it was.

    `partly` where sizes, and captions that lie beside videos, were not looked at.
    """

    new: Difference = field(default_factory=Difference)
    gone: Difference = field(default_factory=Difference)
    resized: Difference = field(default_factory=Difference)
    recaptioned: Difference = field(default_factory=Difference)
    unread: str = ""
    partly: bool = False

    @property
    def is_same(self) -> bool:
        differences = (self.new, self.gone, self.resized, self.recaptioned)
        return not self.unread and not any(difference.count for difference in differences)


def standing_before(out: Storage) -> Recorded | None:
    """What stands in OUT before a run prepares it, as far as it can be read."""
    try:
        return Recorded.read(out)
    except UsageMistake:
        return None  # what is wrong with it is told as the run is prepared


def compared_since(out: Storage, source: Source, before: Recorded | None, now: Recorded) -> Compared:
    """`compare`, but where the plan was just made of the source."""
    if before is None or before.plan_sha256 != now.plan_sha256:
        return Compared()
    return compare(out, source)


def compare(out: Storage, source: Source) -> Compared:
    """Compare names, sizes and captions. Reads no contents of videos, and holds some 25 bytes a clip.

    Raises DamagedRecord for a plan that cannot be read.
    """
    planned = _Planned(out)
    found = Compared(partly=not source.root.is_local)
    try:
        clips = source.outline(lambda path: planned.is_known_tar(source.root, path))
        while batch := list(islice(clips, _AT_ONCE)):
            _compare_batch(planned, batch, found, captions=not found.partly or source.is_manifest)
    except (UsageMistake, StorageFault, BadLocation) as fault:
        return Compared(unread=" ".join(str(fault).splitlines()))
    count, names = planned.unseen()
    for name in names:
        found.gone.add(name)
    found.gone.count += count - len(names)
    return found


def _compare_batch(planned: _Planned, batch: list[Clip], found: Compared, captions: bool) -> None:
    rows = planned.rows_of([_id64(clip.clip_id) for clip in batch])
    for clip, row in zip(batch, rows, strict=True):
        if row is None:
            found.new.add(clip.name)
            continue
        planned.seen[row] = True
        size = int(planned.sizes[row])
        if size >= 0 and clip.size == MISSING and clip.has_place:
            found.gone.add(clip.name)
        elif size >= 0 and clip.size >= 0 and size != clip.size:
            found.resized.add(clip.name)
        elif captions and planned.is_recaptioned(row, clip):
            found.recaptioned.add(clip.name)


class _Planned:
    """What the plan says of each clip, in arrays that are sorted by id."""

    def __init__(self, out: Storage) -> None:
        self._out = out
        ids: list[npt.NDArray[np.uint64]] = []
        sizes: list[npt.NDArray[np.int64]] = []
        texts: list[npt.NDArray[np.int64]] = []
        tars: list[npt.NDArray[np.int32]] = []
        self._tars: dict[str, tuple[int, tuple[int, int]]] = {}
        self._known: set[int] = set()
        for batch in self._batches("clip_id", "size", "mtime_ns", "location", "length", "caption", "flaw"):
            column = {name: batch[name].to_pylist() for name in batch.schema.names}
            flaws = column.get("flaw", [""] * batch.num_rows)
            ids.append(np.array([_id64(clip_id) for clip_id in column["clip_id"]], np.uint64))
            sizes.append(np.array(column["size"], np.int64))
            texts.append(np.array([*map(_text_hash, column["caption"], flaws)], np.int64))
            places = zip(column["location"], column["length"], column["size"], column["mtime_ns"], strict=True)
            tars.append(np.array([self._tar_of(*place) for place in places], np.int32))
        order = np.argsort(np.concatenate(ids), kind="stable")
        self._ids = np.concatenate(ids)[order]
        self.sizes, self.texts = np.concatenate(sizes)[order], np.concatenate(texts)[order]
        self._tar = np.concatenate(tars)[order]
        self.seen = np.zeros(len(order), np.bool_)

    def rows_of(self, ids: list[int]) -> list[int | None]:
        """The rows that have these ids; None for one that was not planned."""
        wanted = np.array(ids, np.uint64)
        rows = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        return [int(row) if self._ids[row] == one else None for row, one in zip(rows, wanted, strict=True)]

    def is_known_tar(self, root: Storage, path: str) -> bool:
        """Whether a tar has the size and the time that it was planned with; then all of its clips are as they were."""
        if path not in self._tars:
            return False
        number, planned = self._tars[path]
        entry = root.stat(path)
        is_known = entry is not None and (entry.size, entry.mtime_ns) == planned
        if is_known:
            self._known.add(number)
        return is_known

    def is_recaptioned(self, row: int, clip: Clip) -> bool:
        """Whether its caption is another; of a clip with a flaw only a plan that knows flaws can tell."""
        knows = self._knows_flaws or not clip.flaw
        return knows and int(self.texts[row]) != _text_hash(clip.caption, clip.flaw)

    def unseen(self) -> tuple[int, list[str]]:
        """How many planned clips were not seen, and the names of a few."""
        missing = set(self._ids[~self.seen & ~np.isin(self._tar, [*self._known])].tolist())
        batches = self._batches("clip_id", "name") if missing else iter(())
        rows = (row for batch in batches for row in batch.to_pylist())
        names = (row["name"] for row in rows if _id64(row["clip_id"]) in missing)
        return len(missing), list(islice(names, min(_EXAMPLES, len(missing))))

    def _tar_of(self, location: str, length: int, size: int, mtime_ns: int) -> int:
        """The number of the tar that a clip lies in; -1 for one in a file of its own."""
        if length == WHOLE_FILE:
            return -1
        return self._tars.setdefault(location, (len(self._tars), (size, mtime_ns)))[0]

    def _batches(self, *names: str) -> Iterator[pa.RecordBatch]:
        with reading(self._out, PLAN), self._out.open(PLAN) as file:
            plan = pq.ParquetFile(file)
            there = [name for name in names if name in plan.schema_arrow.names]
            self._knows_flaws = "flaw" in plan.schema_arrow.names
            yield from plan.iter_batches(_AT_ONCE, columns=there, use_threads=False)


def _id64(clip_id: str) -> int:
    return int(clip_id[:16], 16)


def _text_hash(caption: str, flaw: str) -> int:
    """For comparing within this process. A clip that is left out for want of a caption has none, and no flaw."""
    return hash((caption, "" if flaw == _NO_CAPTION else flaw))
