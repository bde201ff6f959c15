"""The check that a source does not give the same clip twice.

The ids are compared as numbers first, and then the rows of the ids that repeat.

Tested in tests/curation/test_plan.py.
"""

from __future__ import annotations

from array import array
from typing import BinaryIO

import numpy as np
import pyarrow.parquet as pq

from nextscene.common.errors import UsageError
from nextscene.common.text import MAX_NAME, readable_text
from nextscene.curation.sources import Source


def refuse_duplicates(plan: BinaryIO, ids: array[int], source: Source) -> None:
    """Raise UsageError if two clips of a written plan have the same id. `ids` has the `id64` of each of its clips."""
    values = np.sort(np.frombuffer(ids, dtype=np.uint64))
    suspects = {int(value) for value in values[1:][values[1:] == values[:-1]]}
    if not suspects:
        return
    seen: dict[str, str] = {}
    plan.seek(0)
    for batch in pq.ParquetFile(plan).iter_batches(
        1024, columns=["clip_id", "identity", "position"], use_threads=False
    ):
        for row in batch.to_pylist():
            if id64(row["clip_id"]) not in suspects:
                continue
            place = f"number {row['position'] + 1} ({one_line(row['identity'])})"
            if row["clip_id"] in seen:
                raise UsageError(
                    f"`source` {source.display_uri}: clip {place} is the same as {seen[row['clip_id']]}:"
                    " same id or video, same span; remove one or give each its own `id` (clips are counted from 1,"
                    " without a header)"
                )
            seen[row["clip_id"]] = place


def id64(clip_id: str) -> int:
    """Return the first 64 bits of a clip's id, to compare millions of ids in little memory."""
    return int(clip_id[:16], 16)


def one_line(name: str) -> str:
    """Return a name as a message shows it: short and on one line."""
    return readable_text(" ".join(name.split()), MAX_NAME)
