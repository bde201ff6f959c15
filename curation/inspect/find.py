"""Search for a clip by its id, a prefix of it or its file, and for a shard by its name, without reading everything.

Tested in tests/curation/inspect/test_inspect.py.
"""

from __future__ import annotations

import difflib
import os.path
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nextscene.common.errors import DamagedRecord, UsageError
from nextscene.common.parquet import read_table, translate_errors
from nextscene.common.storage import Storage, split_query
from nextscene.curation.inspect.open_dataset import OpenDataset
from nextscene.curation.plan import PlannedClip
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.sources import span_text
from nextscene.curation.sources.caption import not_unicode
from nextscene.curation.sources.several import expected_source
from nextscene.shards.format.index import Index
from nextscene.shards.format.layout import PLAN, ShardName
from nextscene.shards.format.manifest import Manifest

LEAST_LETTERS = 6
_NEAR_LETTERS = 4
_MOST_NAMED = 8
_WHOLE_ID = re.compile(r"[0-9a-f]{24}")
_ID = re.compile(r"[0-9a-z]{1,32}")
_SUFFIX = r"\.[^./]+$"
_SHARD = re.compile(r"[a-z]+/nsp-\d{6,}(?:-r\d+)?")


@dataclass(frozen=True)
class ClipLocation:
    """The shard and the unit of a clip. `shard` has revision 0.

    If only an index names the clip, `unit` is -1; if no plan does, `planned` is None.
    """

    clip_id: str
    shard: ShardName
    unit: int = -1
    planned: PlannedClip | None = None


def find_clip(opened: OpenDataset, wanted: str) -> ClipLocation:
    """Return the clip with this file, manifest `id`, clip id, or unique prefix of a clip id.

    Raise UsageError if no clip or more than one is found; the message names the nearest, or those of the same name.
    """
    whole = (spot for spot in _spots(opened, wanted) if spot.clip_id == wanted)
    if _WHOLE_ID.fullmatch(wanted) and (spot := next(whole, None)):
        return spot  # names need not be searched
    if named := _named_so(opened, wanted):
        return named
    unknown = UsageError(
        f"{wanted!r} is neither a clip id (at least {LEAST_LETTERS} letters of it), nor a clip's file or `id` in the"
        " manifest, nor an outcome or reason of a clip, nor a shard such as train/nsp-000000, nor a path of"
        f" one{_as_far_as_known(opened)}"
    )
    if not _ID.fullmatch(wanted):
        raise unknown
    if len(wanted) < LEAST_LETTERS:
        found = list(islice(_spots(opened, wanted), _MOST_NAMED + 1))
        if not found:
            raise unknown
        raise UsageError(f"{wanted} is too short, give at least {LEAST_LETTERS} letters; {_named(found)}")
    near: dict[str, ClipLocation] = {}
    for spot in _spots(opened, wanted[:_NEAR_LETTERS]):
        if spot.clip_id == wanted:
            return spot
        near.setdefault(spot.clip_id, spot)
    matching = [spot for clip_id, spot in near.items() if clip_id.startswith(wanted)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UsageError(f"{wanted} is not enough; {_named(matching)}")
    alike = [near[clip_id] for clip_id in difflib.get_close_matches(wanted, near, 3, 0)]
    raise UsageError(f"no clip has the id {wanted}{_as_far_as_known(opened)}; {_named(alike, 'the nearest: ')}")


def _named_so(opened: OpenDataset, wanted: str) -> ClipLocation | None:
    """Return the one clip whose file or manifest `id` has the name `wanted`, or whose clip id it is; None if none has.

    The first of these that any clip matches decides: exactly the same name; the same name in another spelling; the last
    part of the path; one of the former without the suffix. Raise UsageError if several clips match.
    """
    names = _ways_to_write(opened.out, wanted)
    by_letters: list[tuple[ClipLocation, str]] = []
    by_name: list[tuple[ClipLocation, str]] = []
    by_base: list[tuple[ClipLocation, str]] = []
    without_suffix: list[tuple[ClipLocation, str]] = []
    for spot, called, span in _called(opened, names):
        if spot.clip_id == wanted:
            return spot
        is_base = called[0].endswith(tuple(f"/{name}" for name in names))
        if wanted in called:
            near = by_letters
        elif names & {*called}:
            near = by_name
        else:
            near = by_base if is_base else without_suffix
        near.append((spot, f"{spot.clip_id} ({called[0]}{span})"))
    found = by_letters or by_name or by_base or without_suffix
    if len(found) > 1:
        more = f", and {len(found) - _MOST_NAMED:,} more" if len(found) > _MOST_NAMED else ""
        listed = ", ".join(told for _, told in found[:_MOST_NAMED])
        raise UsageError(f"{len(found):,} clips are called {wanted}; give the id of one of them: {listed}{more}")
    return found[0][0] if found else None


def _ways_to_write(out: Storage, wanted: str) -> frozenset[str]:
    """Return the spellings of a name: in both Unicode forms, and for a path also relative to the source."""
    names = {wanted}
    recorded = RecordedConfig.read(out) if wanted and "://" not in wanted and "\0" not in wanted else None
    root = expected_source(recorded.source).root.local_path("") if recorded else None
    if root is not None:
        names |= {os.path.normpath(wanted), _normal(wanted)}
        for path in (Path(_normal(wanted)), Path(wanted).resolve()):
            names |= {str(path.relative_to(place)) for place in (root, root.resolve()) if path.is_relative_to(place)}
    written = {unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in names} | names
    return frozenset(name for name in written if not not_unicode(name))


def _called(opened: OpenDataset, names: frozenset[str]) -> Iterator[tuple[ClipLocation, tuple[str, ...], str]]:
    """Yield the clips that may have one of the names, each with its own names and its span.

    Read the plan, or the ledgers if there is no plan. A clip whose id is one of the names is included.
    """
    if opened.has_plan:
        with translate_errors(opened.out, PLAN), opened.out.open(PLAN) as file:
            plan = pq.ParquetFile(file)
            for group in range(plan.metadata.num_row_groups):
                columns = ["clip_id", "name", "identity"]
                table = plan.read_row_group(group, columns=columns, use_threads=False)
                rows = _matching(table, ("clip_id", "name", "identity"), "name", names)
                for row in plan.read_row_group(group, use_threads=False).take(rows).to_pylist() if rows else ():
                    clip = PlannedClip(**row)
                    spot = ClipLocation(clip.clip_id, ShardName(clip.split, clip.shard), clip.unit, clip)
                    yield spot, (clip.name, clip.identity), span_text(clip.start_ms, clip.end_ms)
        return
    for path, _ in opened.ledgers():
        table = read_table(opened.out, path)
        if not {"clip_id", "source"} <= set(table.column_names):
            raise DamagedRecord(f"{path} is not a ledger of this version")
        rows = _matching(table, ("clip_id", "source"), "source", names)
        for row in table.take(rows).to_pylist() if rows else ():
            spot = ClipLocation(row["clip_id"], ShardName(row["split"], row["shard"]), row["unit"])
            yield spot, (row["source"],), span_text(row["start_ms"], row["end_ms"])


def _matching(table: pa.Table, columns: Sequence[str], column: str, names: frozenset[str]) -> list[int]:
    """Return the rows in which one of `columns` equals a name, or `column` is a path that ends in a name.

    `column` is also compared without its suffix.
    """
    bare = pc.replace_substring_regex(table[column], pattern=_SUFFIX, replacement="")
    each = [
        pc.is_in(one, value_set=pa.array(sorted(names), pa.string())) for one in (*map(table.column, columns), bare)
    ]
    ends = [pc.ends_with(one, pattern=f"/{name}") for one in (table[column], bare) for name in names]
    hits = reduce(pc.or_, [*each, *ends])
    rows: list[int] = pc.indices_nonzero(hits).to_pylist()
    return rows


def shard_named(out: Storage, text: str) -> ShardName | None:
    """Return the shard that `text` names or is a path of; None if `text` looks like neither.

    Raise UsageError for a path into another dataset.
    """
    if _SHARD.fullmatch(text):
        split, _, stem = text.partition("/")
        return ShardName.of(f"shards/{split}/000/{stem}.tar")
    if "/" not in text:
        return None
    place = split_query(text)[0]
    name = ShardName.of("/".join(place.split("/")[-4:]))
    if name is not None:
        root = place.removesuffix("/".join(place.split("/")[-4:]))
        if root and _normal(root) != _normal(out.display_uri):
            raise UsageError(f"{text} is not in {out.display_uri}")
    return name


def find_shard(opened: OpenDataset, wanted: ShardName) -> ShardName:
    """Return the shard at its newest revision. A revision other than 0 in `wanted` must be the newest.

    Raise UsageError if the shard or the revision does not exist; the message names those that exist.
    """
    planned = dict.fromkeys(name for name, _ in opened.plan.shards()) if opened.plan else {}
    newest = opened.state.sealed.get((wanted.split, wanted.index))
    if newest is not None and wanted.revision in (0, newest.revision):
        return newest
    if newest is not None:
        raise UsageError(f"{wanted} is not there; there is {newest}")
    if wanted in planned:
        return wanted
    there = [*planned] or list(opened.state.sealed.values())
    spans = []
    for split in dict.fromkeys(name.split for name in there):
        of_split = [str(name) for name in there if name.split == split]
        spans.append(of_split[0] if len(of_split) == 1 else f"{of_split[0]} to {of_split[-1]}")
    raise UsageError(f"there is no shard {wanted}, but {' and '.join(spans) or 'none at all'}")


def _spots(opened: OpenDataset, begin: str) -> Iterator[ClipLocation]:
    """Yield the clips whose ids begin with `begin`, some more than once.

    Read the plan, or index and ledgers if there is no plan.
    """
    if opened.has_plan:
        yield from _planned(opened.out, begin)
        return
    if opened.manifest:
        yield from _indexed(opened.out, opened.manifest, begin)
    for path, _ in opened.ledgers():
        table = read_table(opened.out, path)
        if "clip_id" not in table.column_names:
            raise DamagedRecord(f"{path} is not a ledger of this version")
        if rows := _beginning(table["clip_id"], begin):
            for row in table.take(rows).to_pylist():
                yield ClipLocation(row["clip_id"], ShardName(row["split"], row["shard"]), row["unit"])


def _indexed(out: Storage, manifest: Manifest, begin: str) -> Iterator[ClipLocation]:
    for split in manifest.splits:
        index = Index.read(out, manifest, split)
        for number in _beginning(index.table["key"], begin):
            yield ClipLocation(index.key(number), replace(index.shards[index.shard[number]].name, revision=0))


def _planned(out: Storage, begin: str) -> Iterator[ClipLocation]:
    """Yield from the plan the clips whose ids begin with `begin`.

    Read one row group at a time: first only its ids, and the other columns only if one matches.
    """
    with translate_errors(out, PLAN), out.open(PLAN) as file:
        plan = pq.ParquetFile(file)
        for group in range(plan.metadata.num_row_groups):
            ids = plan.read_row_group(group, columns=["clip_id"], use_threads=False)["clip_id"]
            if rows := _beginning(ids, begin):
                for row in plan.read_row_group(group, use_threads=False).take(rows).to_pylist():
                    clip = PlannedClip(**row)
                    yield ClipLocation(clip.clip_id, ShardName(clip.split, clip.shard), clip.unit, clip)


def _beginning(ids: pa.ChunkedArray, begin: str) -> list[int]:
    rows: list[int] = pc.indices_nonzero(pc.starts_with(ids, begin)).to_pylist()
    return rows


def _named(spots: Sequence[ClipLocation], which: str = "ids that begin so: ") -> str:
    ids = list(dict.fromkeys(spot.clip_id for spot in spots))
    if not ids:
        return "none begins like it"
    return f"{which}{', '.join(ids[:_MOST_NAMED])}{', …' if len(ids) > _MOST_NAMED else ''}"


def _as_far_as_known(opened: OpenDataset) -> str:
    known = opened.has_plan or opened.has_ledger
    return "" if known else " (without plan and ledger only those in shards are known)"


def _normal(place: str) -> str:
    return place.rstrip("/") if "://" in place else os.path.normpath(Path(place).absolute())
