"""The ledger: one row per clip with outcome, reason and measurements. Writing a unit's file commits the unit.

Tested in tests/curation/test_hostile_rows.py.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from nextscene.common.errors import DamagedRecord
from nextscene.common.parquet import read_table
from nextscene.common.storage import Storage
from nextscene.common.text import MAX_EVIDENCE, MAX_NAME
from nextscene.curation.outcome import OUTCOMES

T = TypeVar("T")


def _evidence(longest: int = MAX_EVIDENCE) -> str:
    """Return a column of text for people to read. `curation.storable_row` cleans it and cuts it to `longest`."""
    found: str = field(default="", metadata={"evidence": longest})
    return found


def _run_specific(default: T) -> T:
    """Return a column that describes the run, not the data: two runs of one plan agree in all other columns."""
    return field(default=default, metadata={"run_specific": True})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One clip. Sizes are in pixels, `duration` is in seconds. Unknown text is "", an unknown number is -1.

    `remark` is a word to count accepted deviations by: `retimed` if the file has another modification time than
    planned.
    """

    position: int
    clip_id: str
    split: str
    unit: int
    shard: int
    source: str
    start_ms: int
    end_ms: int
    outcome: str
    reason: str = ""
    detail: str = _evidence()
    caption: str = ""
    scene_description: str = ""
    verdict: str = ""
    verdict_reason: str = _evidence()
    rounds: int = 0
    judge: str = ""
    judge_model: str = _evidence(MAX_NAME)
    prompt_sha256: str = ""
    captioned_by: str = _evidence(MAX_NAME)
    turned_down: str = ""
    sample: int = 0
    remark: str = _run_specific("")
    source_width: int = -1
    source_height: int = -1
    duration: float = -1.0
    codec: str = _evidence(MAX_NAME)
    frames: int = -1
    width: int = -1
    height: int = -1
    bytes: int = -1
    mp4_sha256: str = ""
    run_id: str = _run_specific("")
    host: str = _run_specific("")
    finished_at: str = _run_specific("")
    cut_cpu_seconds: float = _run_specific(0.0)
    input_tokens: int = _run_specific(0)
    output_tokens: int = _run_specific(0)
    usd: float = _run_specific(0.0)
    calls: str = _run_specific("")

    @property
    def kept(self) -> bool:
        return self.outcome == "kept"


RETIMED = "retimed"
_OPTIONAL_COLUMNS = frozenset(["remark"])
"""Columns that are missing in ledgers of older versions."""

RUN_SPECIFIC = tuple(f.name for f in fields(Row) if f.metadata.get("run_specific"))

_TYPES: dict[str, pa.DataType] = {"int": pa.int64(), "str": pa.string(), "float": pa.float64()}
SCHEMA = pa.schema(
    [
        pa.field(f.name, _TYPES[str(f.type)], False, {"run_specific": "true"} if f.name in RUN_SPECIFIC else None)
        for f in fields(Row)
    ]
)


def write_ledger(out: Storage, path: str, rows: Sequence[Row]) -> str:
    """Write rows as Parquet in the given order, and return the sha256 of the file."""
    columns = [pa.array([getattr(row, f.name) for row in rows], f.type) for f in SCHEMA]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), file, compression="zstd")
    out.write(path, file.getvalue())
    return hashlib.sha256(file.getvalue()).hexdigest()


def read_ledger(out: Storage, path: str) -> list[Row]:
    """Return the rows of one ledger file. Raise FileNotFoundError, or DamagedRecord if the file is not a ledger."""
    table = read_table(out, path)
    if table.schema.names != [
        name for name in SCHEMA.names if name in table.schema.names or name not in _OPTIONAL_COLUMNS
    ]:
        raise DamagedRecord(f"{path} is not a ledger of this version")
    try:
        rows = [Row(**row) for row in table.to_pylist()]
    except UnicodeDecodeError as error:
        raise DamagedRecord(f"{path} cannot be read: {error}") from error
    if unknown := {row.outcome for row in rows} - {*OUTCOMES}:
        raise DamagedRecord(f"{path} has an unknown outcome: {min(unknown)!r}")
    return rows


@dataclass
class Tally:
    """Counts of a ledger, added up file by file."""

    by_reason: dict[tuple[str, str], int]
    remarks: Counter[str]

    @staticmethod
    def empty() -> Tally:
        return Tally({}, Counter())

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            key = (row.outcome, row.reason)
            self.by_reason[key] = self.by_reason.get(key, 0) + 1
            self.remarks.update([row.remark] if row.remark else [])

    @property
    def total(self) -> int:
        return sum(self.by_reason.values())

    def count(self, outcome: str) -> int:
        return sum(count for (name, _), count in self.by_reason.items() if name == outcome)

    def lines(self) -> Iterator[tuple[str, str, int]]:
        """Yield (outcome, reason, count): kept first, then in the order of outcomes, the largest counts first."""
        order = {outcome: place for place, outcome in enumerate(OUTCOMES)}
        for (outcome, reason), count in sorted(
            self.by_reason.items(),
            key=lambda item: (order[item[0][0]], -item[1], item[0][1]),  # type: ignore[index]
        ):
            yield outcome, reason, count
