"""Megatron-Energon: the files that its `energon prepare` would write, made from manifest and receipts.

The `.tar.idx` beside each tar belongs to them and is written when the shard is sealed.

Tested in tests/shards/exports/test_exports.py.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from nextscene.common.hashing import sha256_of
from nextscene.common.scratch import scratch_folder
from nextscene.common.storage import Storage, StorageFault
from nextscene.shards.format import layout
from nextscene.shards.format.checksums import Checksums
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import Receipt

_FOLDER = layout.ENERGON
INDEX = f"{_FOLDER}/index.sqlite"
_IDENTITY = f"{_FOLDER}/index.uuid"
_HEADER_BYTES = 100
_DATASET = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE samples (
    tar_file_id INTEGER NOT NULL,
    sample_key TEXT NOT NULL UNIQUE,
    sample_index INTEGER NOT NULL,
    byte_offset INTEGER,
    byte_size INTEGER
);
CREATE TABLE sample_parts (
    tar_file_id INTEGER,
    sample_index INTEGER,
    part_name TEXT,
    content_byte_offset INTEGER,
    content_byte_size INTEGER
);
"""

_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full
    ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size);
"""


def publish(out: Storage, manifest: Manifest, receipts: Iterable[Receipt]) -> Checksums:
    """Write `.nv-meta`. `receipts` are those of the manifest's shards, in its order; one is held at a time.

    Return the SHA-256 of each file, except of an index that was up to date. Raise StorageFault, also if TMPDIR has no
    space for the index.
    """
    small_files, sums = dict(files(manifest)), {}
    # The identity is written after the index that it names.
    if not _is_whole(out) or not out.holds(_IDENTITY, small_files[_IDENTITY]):
        sums[INDEX] = _publish_index(out, receipts)
    for path, data in small_files.items():
        out.write_if_changed(path, data)
    return sums | {path: hashlib.sha256(data).hexdigest() for path, data in small_files.items()}


def files(manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) of all files except the index."""
    for name, text in _small_files(manifest):
        yield f"{_FOLDER}/{name}", text.encode()


def index_fits(out: Storage, receipts: Iterable[Receipt]) -> bool:
    """Return whether the index has a row for each sample and member of `receipts`, in order, and no other.

    Raise FileNotFoundError, StorageFault.
    """
    with tempfile.TemporaryDirectory() as folder:
        database = out.local_path(INDEX)
        if database is None:
            database = Path(folder) / "index.sqlite"
            out.copy_to(database, INDEX)
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as index:
            index.text_factory = bytes  # a damaged key may be invalid UTF-8
            try:
                return all(_holds(index, receipts))
            except sqlite3.Error:
                return False


def _is_whole(out: Storage) -> bool:
    """Return whether the index exists and has the length that its own header states."""
    entry = out.stat(INDEX)
    if entry is None or entry.size < _HEADER_BYTES:
        return False
    header = out.read(INDEX, 0, _HEADER_BYTES)
    page_bytes, pages = int.from_bytes(header[16:18]), int.from_bytes(header[28:32])
    return entry.size == (65536 if page_bytes == 1 else page_bytes) * pages


def _small_files(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "index.uuid", str(_identity(manifest))
    yield ".info.json", json.dumps({"shard_counts": {shard.path: shard.count for shard in manifest.shards}}, indent=2)
    yield "split.yaml", _split_yaml(manifest)
    yield "dataset.yaml", _DATASET


def _identity(manifest: Manifest) -> uuid.UUID:
    """Return the id by which Energon recognizes an index: equal for equal shards, different for others."""
    listed = json.dumps([(shard.path, shard.sha256) for shard in manifest.shards])
    return uuid.uuid5(uuid.NAMESPACE_OID, listed)


def _split_yaml(manifest: Manifest) -> str:
    """Return each tar by its name: a pattern could match one that a retry has left behind."""
    lines = ["split_parts:" if manifest.splits else "split_parts: {}"]
    for split in manifest.splits:
        lines += [f"  {split}:", *(f"  - {shard.path}" for shard in manifest.of_split(split))]
    return "\n".join([*lines, "exclude: []", ""])


def _publish_index(out: Storage, receipts: Iterable[Receipt]) -> str:
    """Publish the index and return its SHA-256."""
    try:
        # SQLite writes at random offsets, which object stores and many network disks do not support.
        with scratch_folder() as folder:
            database = folder / "index.sqlite"
            _write_index(database, receipts)
            with database.open("rb") as made, out.atomic_writer(INDEX) as file:
                shutil.copyfileobj(made, file, 1 << 20)
                return sha256_of(made)
    except (OSError, sqlite3.OperationalError) as fault:
        place = tempfile.gettempdir()
        raise StorageFault(f"cannot make Energon's index in {place}: {fault}; set TMPDIR") from fault


def _write_index(database: Path, receipts: Iterable[Receipt]) -> None:
    """Write the tables of `energon prepare`, row for row."""
    with closing(sqlite3.connect(database, isolation_level=None)) as index:
        index.executescript(_TABLES)
        index.execute("BEGIN")
        for tar, receipt in enumerate(receipts):
            index.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", _sample_rows(tar, receipt))
            index.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", _part_rows(tar, receipt))
        index.execute("COMMIT")
        index.executescript(_INDEXES)


def _holds(index: sqlite3.Connection, receipts: Iterable[Receipt]) -> Iterator[bool]:
    """Yield, for each receipt, whether the next rows of both tables are its own; at the end, whether no row is left."""
    samples = index.execute("SELECT * FROM samples ORDER BY rowid")
    parts = index.execute("SELECT * FROM sample_parts ORDER BY rowid")
    for tar, receipt in enumerate(receipts):
        for rows, wanted in ((samples, _sample_rows(tar, receipt)), (parts, _part_rows(tar, receipt))):
            for row in wanted:
                yield rows.fetchone() == tuple(one.encode() if isinstance(one, str) else one for one in row)
    yield samples.fetchone() is None and parts.fetchone() is None


def _sample_rows(tar: int, receipt: Receipt) -> Iterator[tuple[int, str, int, int, int]]:
    for number, (clip_id, place) in enumerate(zip(receipt.clip_ids, receipt.places, strict=True)):
        yield tar, clip_id, number, place.offset, place.end - place.offset


def _part_rows(tar: int, receipt: Receipt) -> Iterator[tuple[int, int, str, int, int]]:
    for number, place in enumerate(receipt.places):
        for member, offset, size in place.slices(receipt.members):
            yield tar, number, member, offset, size
