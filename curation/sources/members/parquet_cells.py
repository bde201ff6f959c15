"""Videos and images that are cells of a Parquet table, read in place.

A cell has no place of its own in the file: its row group is read from its beginning, a row at a time. Clips of one row
group follow each other, so that each is reached from the one before it. Memory is that of a page, which in tables of
large cells is often all of a row group; larger groups than MAX_GROUP_BYTES are refused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from nextscene.common.text import first_line
from nextscene.curation.sources.members.unpacking import DamagedMember

MAX_GROUP_BYTES = 2 << 30

_PREFIX = "parquet:"
_AHEAD = 1 << 20


def cell_packing(leaf: str) -> str:
    """Return what `Clip.packed` is for the cells of a column, which is given by its path in the file's schema."""
    return f"{_PREFIX}{leaf}"


def is_in_parquet(packed: str) -> bool:
    """Return whether a member that is stored like that, as text, is a cell."""
    return packed.startswith(_PREFIX)


class CellReader:
    """A reader of the cells of one column of an open table. Raise DamagedMember if it is not sound, and OSError."""

    def __init__(self, file: BinaryIO, packed: str) -> None:
        self._leaf = packed.removeprefix(_PREFIX)
        with _translated():
            self._table = pq.ParquetFile(file, buffer_size=_AHEAD, pre_buffer=False)
        groups = (self._table.metadata.row_group(number).num_rows for number in range(self._table.num_row_groups))
        self._ends = [*accumulate(groups)]
        self._group = self._next_row = -1
        self._cells: Iterator[bytes | None] = iter(())

    def copy(self, row: int, target: Path) -> None:
        """Write the bytes of a cell, given its row from 0. One that is in a later row of its group is reached faster.

        Raise DamagedMember for a cell without bytes.
        """
        group = bisect_right(self._ends, row)
        if group == len(self._ends):
            raise DamagedMember(f"its table has no row {row + 1}")
        if group != self._group or row < self._next_row:
            self._cells, self._next_row = self._cells_of(group), self._ends[group - 1] if group else 0
        data, self._group = None, -1
        with _translated():
            while self._next_row <= row:
                self._next_row += 1
                data = next(self._cells, None)
        self._group = group
        if not data:
            raise DamagedMember(f"row {row + 1} of its table has no bytes")
        target.write_bytes(data)

    def _cells_of(self, group: int) -> Iterator[bytes | None]:
        columns = self._table.metadata.row_group(group)
        sizes = {column["path_in_schema"]: column["total_uncompressed_size"] for column in columns.to_dict()["columns"]}
        if sizes.get(self._leaf, 0) > MAX_GROUP_BYTES:
            most = f"{MAX_GROUP_BYTES >> 20:,} MiB"
            raise DamagedMember(f"its row group has more than {most}; write the table anew in smaller row groups")
        for batch in self._table.iter_batches(1, row_groups=[group], columns=[self._leaf], use_threads=False):
            cell = batch.column(0)[0].as_py()
            yield cell.get("bytes") if isinstance(cell, dict) else cell


@contextmanager
def _translated() -> Iterator[None]:
    """Raise DamagedMember for the errors of Arrow, some of which are an OSError without a number."""
    try:
        yield
    except (pa.ArrowException, ValueError, OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise DamagedMember(f"its table cannot be read: {first_line(error)}") from error
