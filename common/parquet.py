"""Reading Parquet, whole or in pieces: never with Arrow's threads, and with one error for what is none.

A process that ends while Arrow's threads start is aborted, and one that forks after it loses them.
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
    """A small file, whole. Raise FileNotFoundError, or DamagedRecord for what is not Parquet."""
    return read_open(open_table(out, path), path)


def open_table(out: Storage, path: str) -> pq.ParquetFile:
    """A small file, of which only the footer is looked at. Raise as `read_table`."""
    return _understood(path, partial(pq.ParquetFile, io.BytesIO(out.read(path))))


def read_open(file: pq.ParquetFile, path: str) -> pa.Table:
    return _understood(path, partial(file.read, use_threads=False))


def _understood(path: str, action: Callable[[], T]) -> T:
    try:
        return action()
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:  # Arrow raises each for bytes it cannot use
        raise _damaged(path, error) from error


@contextmanager
def translate_errors(out: Storage, path: str) -> Iterator[None]:
    """What is wrong with a file that is read in pieces becomes DamagedRecord, what is with its storage StorageFault."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if out.is_local and error.errno is None:  # so Arrow calls bytes that it cannot use
            raise _damaged(path, error) from error
        raise storage_fault("read", path, out.display_uri, error) from error


def _damaged(path: str, error: Exception) -> DamagedRecord:
    return DamagedRecord(f"{path} cannot be read: {first_line(error)}")
