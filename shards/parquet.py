"""Reading Parquet, whole or in pieces: never with Arrow's threads, and with one error for what is none.

A process that ends while Arrow's threads start is aborted, and one that forks after it loses them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from shards.filesystem import fault_of
from shards.receipt import DamagedRecord
from shards.storage import Storage


def read_table(out: Storage, path: str) -> pa.Table:
    """A small file, whole. Raises FileNotFoundError, or DamagedRecord for what is not Parquet."""
    data = io.BytesIO(out.read(path))
    try:
        return pq.ParquetFile(data).read(use_threads=False)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:  # Arrow raises each for bytes it cannot use
        raise _damaged(path, error) from error


@contextmanager
def reading(out: Storage, path: str) -> Iterator[None]:
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
        raise fault_of("read", path, out.shown, error) from error


def _damaged(path: str, error: Exception) -> DamagedRecord:
    return DamagedRecord(f"{path} cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}")
