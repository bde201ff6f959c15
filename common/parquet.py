"""Reading Parquet, whole or in pieces, without Arrow's threads, and with one error for what is not Parquet.

A process that exits while Arrow's threads start is aborted, and a fork loses them. Tested in
tests/curation/test_plan.py.

Tested in tests/shards/format/test_index.py.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from nextscene.common.errors import DamagedRecord
from nextscene.common.filesystem import storage_fault
from nextscene.common.storage import Storage
from nextscene.common.text import first_line

T = TypeVar("T")


def read_table(out: Storage, path: str) -> pa.Table:
    """Return a small file as a table. Raise FileNotFoundError, or DamagedRecord if it is not Parquet."""
    return read_open(open_table(out, path), path)


def open_table(out: Storage, path: str) -> pq.ParquetFile:
    """Return a small file with only its footer parsed. Raise as `read_table`."""
    return _translated(path, partial(pq.ParquetFile, io.BytesIO(out.read(path))))


def read_open(file: pq.ParquetFile, path: str) -> pa.Table:
    """Return the table of an open file. Raise DamagedRecord."""
    return _translated(path, partial(file.read, use_threads=False))


def _translated(path: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:  # Arrow raises each of these for invalid bytes
        raise _damaged(path, error) from error


@contextmanager
def translate_errors(out: Storage, path: str) -> Iterator[None]:
    """Raise DamagedRecord for damage of a file that the block reads in pieces, StorageFault for a failed storage."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if out.is_local and error.errno is None:  # Arrow's error for invalid bytes
            raise _damaged(path, error) from error
        raise storage_fault("read", path, out.display_uri, error) from error


def _damaged(path: str, error: Exception) -> DamagedRecord:
    return DamagedRecord(f"{path} cannot be read: {first_line(error)}")
