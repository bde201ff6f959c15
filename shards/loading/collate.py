"""A micro-batch assembled from its draws, in a worker or where it is wanted: read, decoded, bad clips replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from nextscene.common.storage import StorageFault
from nextscene.shards.format.tar import DamagedShard
from nextscene.shards.loading.buffer_pool import BufferPool, BufferSlot
from nextscene.shards.loading.decode import NoDecoder
from nextscene.shards.loading.reader import DatasetChanged
from nextscene.shards.loading.sample_set import Memory, SampleSet, SampleText
from nextscene.shards.loading.shuffle import IntArray, SampleRef, splitmix64


class Batch(NamedTuple):
    """A micro-batch of one bucket.

    `video` is uint8 [clips, frames, height, width, RGB], or of latents float16 [clips, channels + 1, frames, height,
    width], the mean and then the one log-variance; the other fields have an entry for each clip. `refs` are those of
    the order; `keys` name the clips that are here, others where a bad clip was replaced, and `source` the set of a
    mixture that each comes from, 0 where there is but one. `bad` has a line for each clip that was found to be bad on
    the way.
    """

    video: torch.Tensor
    text: list[str]
    caption: list[str]
    fps: list[float]
    keys: list[str]
    source: list[int]
    refs: list[SampleRef]
    bad: list[str]


class CollateTask(NamedTuple):
    """What a worker is handed: the draws of a micro-batch, and a room for its samples, or None."""

    draws: list[SampleRef]
    room: int | None


class CollatedBatch(NamedTuple):
    """What it hands back. Samples that are `lodged` in a room are not in the batch."""

    batch: Batch
    lodged: BufferSlot | None


class Collator(Dataset[CollatedBatch]):
    """Micro-batches by their draws. What goes wrong is returned, not raised: so it crosses processes as one line."""

    def __init__(self, clips: SampleSet, bucket: IntArray, rooms: BufferPool, skipping: bool) -> None:
        """`skipping` replaces bad clips; otherwise the first is returned as DamagedShard."""
        self._clips = clips
        self._bucket = bucket
        self._rooms = rooms
        self._skipping = skipping
        self._lost: dict[int, str] = {}
        self._members: dict[int, IntArray] = {}

    def __getitem__(self, task: CollateTask) -> CollatedBatch | Exception:  # type: ignore[override]
        bad: list[str] = []
        try:
            for bucket in self._buckets(int(self._bucket[task.draws[0].number])):
                if assembled := self._filled(task, bucket, bad):
                    return assembled
        except (DamagedShard, DatasetChanged, NoDecoder, StorageFault) as error:
            return error
        return DamagedShard(f"{bad[-1]}, and no other clip is whole")

    def _buckets(self, own: int) -> Iterator[int]:
        """Its own; where no clip of that is whole, the others, the largest first: each rank must get its batch."""
        yield own
        numbers, sizes = np.unique(self._bucket, return_counts=True)
        yield from (int(number) for number in numbers[np.argsort(-sizes, kind="stable")] if number != own)

    def _filled(self, task: CollateTask, bucket: int, bad: list[str]) -> CollatedBatch | None:
        """The batch with clips of this bucket, or None if none of them is whole. Adds to `bad`."""
        if bucket not in self._members:
            self._members[bucket] = np.flatnonzero(self._bucket == bucket)
        form = self._clips.array_spec(int(self._members[bucket][0]))
        shape = (len(task.draws), *form.shape)
        lodged = None if task.room is None else BufferSlot(task.room, shape, form.dtype)
        memory = self._rooms.memory(lodged) if lodged else np.empty(shape, form.dtype)
        said: list[SampleText] = []
        for place, draw in zip(memory, task.draws, strict=True):
            words = self._first_whole(place, self._candidates(draw, bucket), bad)
            if words is None:
                return None
            said.append(words)
        text, caption, fps, keys, source = map(list, zip(*said, strict=True))
        video = torch.from_numpy(memory[:0] if lodged else memory)
        return CollatedBatch(Batch(video, text, caption, fps, keys, source, task.draws, bad), lodged)

    def _first_whole(self, memory: Memory, numbers: Iterator[int], bad: list[str]) -> SampleText | None:
        for number in numbers:
            if number not in self._lost:
                try:
                    return self._clips.decode_into(memory, number)
                except DamagedShard as damage:
                    if not self._skipping:
                        raise
                    self._lost[number] = str(damage)
            bad.append(self._lost[number])
        return None

    def _candidates(self, draw: SampleRef, bucket: int) -> Iterator[int]:
        """The clip itself, if it is of this bucket, then what may stand in: all others, from a place of its own on."""
        if self._bucket[draw.number] == bucket:
            yield draw.number
        members = self._members[bucket]
        start = int(splitmix64(np.array([draw.number]), draw.epoch)[0] % np.uint64(len(members)))
        yield from (int(number) for number in np.roll(members, -start) if number != draw.number)
