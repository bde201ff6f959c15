"""Changes to every file of a dataset, by hand and of single bits, that `--verify` must find; exits with 1 if not.

`test_mutations.py` runs a sample of them.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from nextscene.shards.format.layout import CHECKSUMS, CONFIG, MANIFEST, PLAN, REPORT, SUMMARY
from tests.fakes.loopback import files_of
from tests.faults.damaged_sets import ACCOUNT, ONE, changes, make, segments, told
from tests.support import as_before_sums

KINDS = (
    ONE.tar,
    ONE.offsets,
    ONE.receipt,
    ONE.ledger,
    PLAN,
    CONFIG,
    MANIFEST,
    SUMMARY,
    CHECKSUMS,
    "README.md",
    "croissant.json",
    "wids-train.json",
    "index/train.parquet",
    ".nv-meta/index.sqlite",
    ".nv-meta/index.uuid",
    ".nv-meta/split.yaml",
    ".nv-meta/.info.json",
    ".nv-meta/dataset.yaml",
    REPORT,
    ACCOUNT,
    "calls",
)
"""The files in which bits are flipped; `calls` stands for a segment of answers."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutations", description=__doc__)
    parser.add_argument("--flips", type=int, default=1500, help="bits flipped in each kind of file  [default: 1500]")
    asked = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(2) as pool:
        out = make(Path(scratch))
        older = Path(scratch) / "older" / out.name
        shutil.copytree(out, older)
        as_before_sums(older)
        by_hand = dict(zip(changes(), pool.map(partial(mutated, out), changes()), strict=True))
        derived = dict(zip(changes(), pool.map(partial(mutated, older), changes()), strict=True))
        print(f"{'':8}without hashes")
        for name, found in by_hand.items():
            print(f"{'caught' if found else 'MISSED':8}{'caught' if derived[name] else '-':16}{name}")
        print(f"\n{'bits flipped in':40}{'caught':>8}{'changed nothing':>17}{'MISSED':>8}")
        flips = list(pool.map(partial(flipped, out, asked.flips), KINDS))
        for kind, counts in zip(KINDS, flips, strict=True):
            print(f"{kind:40}{counts['caught']:8}{counts['changed nothing']:17}{counts['MISSED']:8}")
    missed = sum(not found for found in by_hand.values()) + sum(counts["MISSED"] for counts in flips)
    print(f"\n{len(by_hand)} changes by hand, {sum(derived.values())} of them found without hashes too;", end=" ")
    print(f"{missed} missed; {time.monotonic() - begun:.0f} s")
    return int(missed > 0)


def mutated(out: Path, name: str) -> bool:
    """Return whether `--verify` finds a change; False if the file to change does not exist."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(out, here := Path(scratch) / out.name)
        try:
            changes()[name](here)
        except FileNotFoundError:
            return False
        assert files_of(here) != files_of(out), f"{name} changes nothing"
        return bool(told(here))


def flipped(out: Path, flips: int, kind: str) -> Counter[str]:
    """Flip single bits in a file; return how many flips are caught, do not change its meaning, or are missed."""
    counts: Counter[str] = Counter()
    chance = random.Random(kind)
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(out, here := Path(scratch) / out.name)
        path = segments(here)[0] if kind == "calls" else here / kind
        whole = path.read_bytes()
        for _ in range(flips):
            data = bytearray(whole)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            found = bool(told(here))
            same = said(path, bytes(data)) == said(path, whole)
            counts["changed nothing" if same else "caught" if found else "MISSED"] += 1
    return counts


def said(path: Path, data: bytes) -> object:
    """Return the parsed content of a file, or its bytes if it cannot be parsed."""
    try:
        return _READERS.get(path.suffix, bytes)(data)
    except Exception:  # noqa: BLE001
        return data


def _rows(data: bytes) -> object:
    table = pq.read_table(io.BytesIO(data), use_threads=False)
    return table.schema.to_string(), table.schema.metadata, table.to_pylist()


def _dump(data: bytes) -> list[str]:
    database = sqlite3.connect(":memory:")
    database.deserialize(data)
    return list(database.iterdump())


_READERS: dict[str, Callable[[bytes], Any]] = {
    ".parquet": _rows,
    ".sqlite": _dump,
    ".json": json.loads,
    ".gz": gzip.decompress,
    ".toml": lambda data: tomllib.loads(data.decode()),
}

if __name__ == "__main__":
    sys.exit(main())
