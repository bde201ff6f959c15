"""Claim: from opening a dataset of 1,000 shards and 512,000 clips to the first micro-batch it takes at most a second.

Measured: wall-clock time in a fresh process (`children/first_batch.py`) from `ClipDataset(…)` to the first micro-batch
of two clips of the sample film (832×480, up to 81 frames), decoded in that process or by one worker. The import of the
modules comes before and is shown beside it. All files of the dataset are in the disk's cache. The manifest, the index,
and the receipts are like those of a run: with a key and a checksum of its own for each clip. The tars would fill a
disk, so they contain only the clips that the first micro-batches take; the rest of each is a hole of the right size,
which is never read.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.film_dataset import MICRO_BATCH, delivered, film_clips, renamed
from benchmarks.support import WORK, Result, child, run_alone
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.receipt import ABSENT, Receipt, SampleLocation
from nextscene.shards.format.sample import CLIPS, Sample
from nextscene.shards.format.tar import END
from nextscene.shards.loading.shuffle import ShuffleOrder
from tests.shards.samples import publish_dataset

SHARDS, CLIPS_A_SHARD = 1000, 512
ROUNDS = 3
SECONDS = 1.0
_WRITTEN_MICRO_BATCHES = 8
"""A worker prefetches a few beyond the first."""


def benchmark(rounds: int | None = None) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        out = _lay_out(Path(folder), film_clips())
        done = [
            {workers: child("first_batch", out.uri, str(MICRO_BATCH), str(workers)) for workers in (0, 1)}
            for _ in range(rounds or ROUNDS)
        ]
    names = {0: "in its own process", 1: "by one worker"}
    return [
        Result(
            f"from a dataset of 1,000 shards to the first micro-batch, decoded {name}",
            [each[workers]["seconds"] for each in done],
            SECONDS,
            unit=" s",
            notes=[_note([each[workers] for each in done])],
        )
        for workers, name in names.items()
    ]


def _note(done: list[dict[str, Any]]) -> str:
    def middle(values: Iterator[float]) -> str:
        return f"{1000 * statistics.median(values):.0f} ms"

    steps = ", ".join(f"{name} {middle(each['steps'][name] for each in done)}" for name in done[0]["steps"])
    imported = middle(each["import"] for each in done)
    return f"{steps} (of {done[0]['frames']} frames); the import before it {imported}"


# ---- the dataset ---------------------------------------------------------------------------------------------------


def _lay_out(folder: Path, film: list[Sample]) -> Storage:
    """Write the clips of the film over and over, each time under another key."""
    out = Storage.at(folder)
    chance = random.Random(0)
    clips = [film[place % len(film)] for place in range(CLIPS_A_SHARD)]
    drawn = _drawn_first(clips)
    receipts = [
        _shard(out, ShardName("train", number), clips, drawn.get(number, []), chance) for number in range(SHARDS)
    ]
    return publish_dataset(out, receipts)


def _drawn_first(clips: list[Sample]) -> dict[int, list[int]]:
    """Return the positions in each shard of the clips of the first micro-batches, if every shard has these clips."""
    bucket = np.unique([delivered(clip) for clip in clips], return_inverse=True)[1]
    order = ShuffleOrder(np.repeat(np.arange(SHARDS), len(clips)), np.tile(bucket, SHARDS), MICRO_BATCH, seed=0)
    drawn: dict[int, list[int]] = {}
    for draws in islice(order.batches(), _WRITTEN_MICRO_BATCHES):
        for number, _ in draws:
            drawn.setdefault(number // len(clips), []).append(number % len(clips))
    return drawn


def _shard(out: Storage, name: ShardName, clips: list[Sample], written: list[int], chance: random.Random) -> Receipt:
    keys = [f"{chance.getrandbits(96):024x}" for _ in clips]
    whole = {place: renamed(clips[place], keys[place]).to_bytes() for place in written}
    places: list[SampleLocation] = []
    offset = 0
    for number, clip in enumerate(clips):
        sizes, record = (len(clip.json), len(clip.media), ABSENT, len(clip.text)), clip.record
        crc32 = zlib.crc32(whole[number]) if number in whole else chance.getrandbits(32)
        places.append(SampleLocation(offset, sizes, crc32, record.frames, record.width, record.height))
        offset = places[-1].end
    tar = Path(out.full_path(name.tar))
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tar.open("wb") as file:
        file.truncate(offset + len(END))
        for number, data in whole.items():
            file.seek(places[number].offset)
            file.write(data)
    ids = tuple(keys)
    sha256 = f"{chance.getrandbits(256):064x}"
    receipt = Receipt(name.split, name.index, 0, sha256, offset + len(END), len(ids), CLIPS.members, ids, tuple(places))
    receipt.publish(out)
    return receipt


if __name__ == "__main__":
    run_alone(benchmark)
