"""Reading a small Parquet file whole."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from shards.receipt import DamagedRecord
from shards.storage import Storage


def read_table(out: Storage, path: str) -> pa.Table:
    """Raises FileNotFoundError, or DamagedRecord for what is not Parquet."""
    data = io.BytesIO(out.read(path))
    try:
        # Without Arrow's threads: a process that ends while they start is aborted, one that forks after loses them.
        return pq.ParquetFile(data).read(use_threads=False)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:  # Arrow raises each for bytes it cannot use
        raise DamagedRecord(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
