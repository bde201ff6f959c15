"""Collate: a micro-batch from its sample refs, read and decoded in a worker or on demand, bad clips replaced.

Tested in tests/shards/loading/test_loader.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from nextscene.common.storage import StorageFault
from nextscene.shards.format.tar import DamagedShard
from nextscene.shards.loading.buffer_pool import BufferPool, BufferSlot
from nextscene.shards.loading.deal import Piece
from nextscene.shards.loading.decode import NoDecoder
from nextscene.shards.loading.reader import DatasetChanged
from nextscene.shards.loading.sample_set import Memory, SampleSet, SampleText
from nextscene.shards.loading.shuffle import IntArray, SampleRef, splitmix64


class Batch(NamedTuple):
    """A micro-batch of one bucket.

    `video` is uint8 [clips, frames, height, width, RGB], or, for latents, float16 [clips, channels + 1, frames, height,
    width], the mean and then one log-variance; the other fields have an entry for each clip. `refs` are those of the
    shuffled order; `keys` name the clips in the batch, which differ if a bad clip was replaced, and `source` is the
    dataset of a mixture that each comes from, 0 if there is only one. `bad` has a line for each bad clip that was found
    on the way. `weight` and `last` are those of its `shards.loading.deal.Piece`, if it was dealt.
    """

    video: torch.Tensor
    text: list[str]
    caption: list[str]
    fps: list[float]
    keys: list[str]
    source: list[int]
    refs: list[SampleRef]
    bad: list[str]
    weight: float = 1.0
    last: bool = True


class CollateTask(NamedTuple):
    """The task of a worker: the samples of a micro-batch, and the number of a buffer for its samples, or None."""

    piece: Piece
    buffer: int | None

    @property
    def refs(self) -> list[SampleRef]:
        return self.piece.refs


class CollatedBatch(NamedTuple):
    """The result of a task. If there is a `slot`, the samples are in its buffer and not in the batch."""

    batch: Batch
    slot: BufferSlot | None


class Collator(Dataset[CollatedBatch]):
    """Micro-batches by their sample refs. Errors are returned, not raised: so they cross processes as one line."""

    def __init__(self, clips: SampleSet, bucket: IntArray, buffers: BufferPool, skip_bad: bool) -> None:
        """Make it for these clips. `skip_bad` replaces bad clips; otherwise the first is returned as DamagedShard."""
        self._clips = clips
        self._bucket = bucket
        self._buffers = buffers
        self._skip_bad = skip_bad
        self._bad_clips: dict[int, str] = {}
        self._members: dict[int, IntArray] = {}

    def __getitem__(self, task: CollateTask) -> CollatedBatch | Exception:  # type: ignore[override]
        bad: list[str] = []
        try:
            for bucket in self._buckets(int(self._bucket[task.refs[0].number])):
                if collated := self._collate(task, bucket, bad):
                    return collated
        except (DamagedShard, DatasetChanged, NoDecoder, StorageFault) as error:
            return error
        return DamagedShard(f"{bad[-1]}, and no other clip is whole")

    def _buckets(self, own: int) -> Iterator[int]:
        """Yield its own bucket; if no clip of it is good, the others, the largest first: each rank must get a batch."""
        yield own
        numbers, sizes = np.unique(self._bucket, return_counts=True)
        yield from (int(number) for number in numbers[np.argsort(-sizes, kind="stable")] if number != own)

    def _collate(self, task: CollateTask, bucket: int, bad: list[str]) -> CollatedBatch | None:
        """Return the batch with clips of this bucket, or None if none of them is good. Add to `bad`."""
        if bucket not in self._members:
            self._members[bucket] = np.flatnonzero(self._bucket == bucket)
        spec = self._clips.array_spec(int(self._members[bucket][0]))
        shape = (len(task.refs), *spec.shape)
        slot = None if task.buffer is None else BufferSlot(task.buffer, shape, spec.dtype)
        memory = self._buffers.memory(slot) if slot else np.empty(shape, spec.dtype)
        texts: list[SampleText] = []
        for array, ref in zip(memory, task.refs, strict=True):
            sample_text = self._first_good(array, self._candidates(ref, bucket), bad)
            if sample_text is None:
                return None
            texts.append(sample_text)
        text, caption, fps, keys, source = map(list, zip(*texts, strict=True))
        video = torch.from_numpy(memory[:0] if slot else memory)
        return CollatedBatch(Batch(video, text, caption, fps, keys, source, task.refs, bad, *task.piece[1:]), slot)

    def _first_good(self, memory: Memory, numbers: Iterator[int], bad: list[str]) -> SampleText | None:
        for number in numbers:
            if number not in self._bad_clips:
                try:
                    return self._clips.decode_into(memory, number)
                except DamagedShard as damage:
                    if not self._skip_bad:
                        raise
                    self._bad_clips[number] = str(damage)
            bad.append(self._bad_clips[number])
        return None

    def _candidates(self, ref: SampleRef, bucket: int) -> Iterator[int]:
        """Yield the clip, if it is of this bucket, then its replacements: all others, from an offset by its hash."""
        if self._bucket[ref.number] == bucket:
            yield ref.number
        members = self._members[bucket]
        start = int(splitmix64(np.array([ref.number]), ref.epoch)[0] % np.uint64(len(members)))
        yield from (int(number) for number in np.roll(members, -start) if number != ref.number)
