"""Iterate over epochs of a dataset with one worker: `epochs LOCATION MICRO_BATCH MAX_FRAMES EPOCHS`.

After each micro-batch it measures the memory of this process and of its worker. It prints the largest number of bytes
of each epoch: the memory that they have allocated (`heap`), and the same with the shared memory that holds
micro-batches (`all`). A page that both have counts once. The code of libraries, which other programs share, does not
count.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import psutil

from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.loader import Loader

_SHARED = Path("/dev/shm")  # noqa: S108
_HEAP = re.compile(r"^Pss_Anon:\s+(\d+) kB$", re.MULTILINE)
_MAPPED = re.compile(r"^Pss_Shmem:\s+(\d+) kB$", re.MULTILINE)


def main(location: str, micro_batch: int, max_frames: int, epochs: int) -> None:
    clips = ClipDataset(location, max_frames=max_frames)
    loader = Loader(clips, micro_batch=micro_batch, workers=1)
    peaks = {kind: [0] * epochs for kind in ("heap", "all")}
    before = _on_shared_disk()
    for batch in loader:
        epoch = batch.refs[-1].epoch
        if epoch == epochs:
            break
        # A batch that the worker has sent and no process has opened yet is mapped nowhere, but is in shared memory.
        shared = max(_bytes(_MAPPED), _on_shared_disk() - before)
        heap = _bytes(_HEAP)
        for kind, now in (("heap", heap), ("all", heap + shared)):
            peaks[kind][epoch] = max(peaks[kind][epoch], now)
    print(json.dumps(peaks))


def _bytes(kind: re.Pattern[str]) -> int:
    """Return the bytes of one kind in this process and its worker; shared pages count in proportion."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    texts = [Path(f"/proc/{process.pid}/smaps_rollup").read_text() for process in processes]
    return sum(int(kilobytes) << 10 for text in texts for kilobytes in kind.findall(text))


def _on_shared_disk() -> int:
    disk = os.statvfs(_SHARED)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
