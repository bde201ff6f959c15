"""The rows of a Parquet file. A row that cannot be read ends the table.

Tested in tests/curation/sources/test_cell_values.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from nextscene.common.errors import UsageError
from nextscene.common.storage import StorageFault
from nextscene.common.text import first_line
from nextscene.curation.sources.columns import listed
from nextscene.curation.sources.lfs_pointer import LFS_START
from nextscene.curation.sources.tables.table_file import Check, Row, TableFile, refuse_lfs_pointer, refuse_repeated_name

_BATCH = 32
_ARROW_RAISES = (pa.ArrowException, ValueError, OverflowError, OSError)
"""The errors that Arrow raises for bytes that it cannot use."""
_BINARY = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}


def leaf_of_cells(file: TableFile, columns: Sequence[str]) -> str:
    """Return the path in the table's schema of the bytes in the first of `columns` that it has: of binary values, or of
    objects with binary `bytes`. Raise UsageError if there are none.
    """
    with file.root.open(file.path) as raw, _translated(raw, file.display_uri):
        leaves = _leaves(pq.ParquetFile(raw))
    for leaf in (leaf for column in columns for leaf in (column, f"{column}.bytes")):
        if leaf in leaves and _is_bytes(leaves[leaf]):
            return leaf
    there = listed([*dict.fromkeys(leaf.partition(".")[0] for leaf in leaves)])
    raise UsageError(
        f"{file.display_uri}: no column {' or '.join(map(repr, columns))} with the bytes of files (it has {there})"
    )


def parquet_rows(file: TableFile, check: Check, without: str = "") -> Iterator[Row]:
    """Yield the rows, those of a leaf in the schema left out. Raise UsageError, StorageFault."""
    where = file.display_uri
    with file.root.open(file.path) as raw, _translated(raw, where):
        table = pq.ParquetFile(raw)
        refuse_repeated_name(table.schema_arrow.names, where)
        check(table.schema_arrow.names, where)
        columns = [leaf for leaf in _leaves(table) if leaf != without] if without else None
        number = 0
        # A column's dictionary may have one long value to which every row refers.
        for batch in table.iter_batches(batch_size=_BATCH, columns=columns, use_threads=False):
            if batch.nbytes > file.longest_row:
                _refuse_long_rows(batch, number, file)
            rows = zip(*map(_values, batch.columns), strict=True) if batch.columns else repeat((), batch.num_rows)
            for values in rows:
                number += 1
                yield f"row {number}", dict(zip(batch.schema.names, values, strict=True))


def _leaves(table: pq.ParquetFile) -> dict[str, pq.ColumnSchema]:
    """Return each column of the table's schema, down to its values, by its path there."""
    columns = (table.schema.column(number) for number in range(len(table.schema)))
    return {column.path: column for column in columns}


def _is_bytes(column: pq.ColumnSchema) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY" and column.logical_type.type == "NONE")


@contextmanager
def _translated(raw: BinaryIO, where: str) -> Iterator[None]:
    """Raise UsageError or StorageFault for the errors of Arrow that the table `raw` causes."""
    try:
        yield
    except _ARROW_RAISES as error:
        if isinstance(error, UsageError):
            raise
        if isinstance(error, OSError) and error.errno:
            raise StorageFault(f"cannot read {where}: {error.strerror}") from error
        raw.seek(0)
        refuse_lfs_pointer(raw.read(len(LFS_START)), where)
        raise UsageError(f"{where}: not a sound Parquet file: {first_line(error)}") from error


def _refuse_long_rows(batch: pa.RecordBatch, before: int, file: TableFile) -> None:
    for place in range(batch.num_rows):
        if batch.slice(place, 1).nbytes > file.longest_row:
            where, most = f"{file.display_uri}, row {before + place + 1}", file.longest_in_words
            raise UsageError(f"{where}: longer than {most}; is it a table of clips?")


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if (coarser := _in_microseconds(column.type)) != column.type:
        column = column.cast(coarser, safe=False)
    try:
        values: list[Any] = column.to_pylist()
    except (UnicodeDecodeError, OverflowError):
        if column.type in _BINARY:
            binary = column.cast(_BINARY[column.type]).to_pylist()
            return [data if data is None else data.decode("utf-8", "surrogateescape") for data in binary]
        values = [_value(scalar) for scalar in column]
    return values


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """Return the type with nanoseconds replaced by microseconds, which are as exact as Python's times.

    From finer times Arrow makes other values if pandas is installed.
    """
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if pa.types.is_list(kind):
        return pa.list_(_in_microseconds(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _in_microseconds(field.type)) for field in kind])
    return kind


def _value(scalar: pa.Scalar) -> Any:
    """Return one value of a column that Python cannot represent as a whole. A time outside Python's calendar becomes
    Arrow's text for it.
    """
    try:
        return scalar.as_py()
    except UnicodeDecodeError:  # a text in a list or an object
        return "\udcff"
    except OverflowError:
        return scalar.cast(pa.string()).as_py()
