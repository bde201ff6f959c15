"""A micro-batch assembled from its draws, in a worker or where it is wanted: read, decoded, bad clips replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from shards.dataset import ClipDataset
from shards.decode import NoDecoder, Pixels
from shards.filesystem import first_line
from shards.order import Draw, Numbers, hashed
from shards.read import DatasetChanged
from shards.sample import Record, Sample
from shards.storage import StorageFault
from shards.tar import DamagedShard


class Batch(NamedTuple):
    """A micro-batch of one bucket.

    `video` is uint8 [clips, frames, height, width, RGB]; the other fields have an entry for each clip. `draws` are
    those of the order; `keys` name the clips that are here, others where a bad clip was replaced. `bad` has a line for
    each clip that was found to be bad on the way.
    """

    video: torch.Tensor
    text: list[str]
    caption: list[str]
    fps: list[float]
    keys: list[str]
    draws: list[Draw]
    bad: list[str]


class Assembler(Dataset[Batch]):
    """Micro-batches by their draws. What goes wrong is returned, not raised: so it crosses processes as one line."""

    def __init__(self, clips: ClipDataset, bucket: Numbers, skipping: bool) -> None:
        """`skipping` replaces bad clips; otherwise the first is returned as DamagedShard."""
        self._clips = clips
        self._bucket = bucket
        self._skipping = skipping
        self._lost: dict[int, str] = {}

    def __getitem__(self, draws: list[Draw]) -> Batch | Exception:  # type: ignore[override]
        bad: list[str] = []
        try:
            for bucket in self._buckets(int(self._bucket[draws[0].number])):
                if batch := self._filled(draws, bucket, bad):
                    return batch
        except (DamagedShard, DatasetChanged, NoDecoder, StorageFault) as error:
            return error
        return DamagedShard(f"{bad[-1]}, and no other clip is whole")

    def _buckets(self, own: int) -> Iterator[int]:
        """Its own; where no clip of that is whole, the others, the largest first: each rank must get its batch."""
        yield own
        numbers, sizes = np.unique(self._bucket, return_counts=True)
        yield from (int(number) for number in numbers[np.argsort(-sizes, kind="stable")] if number != own)

    def _filled(self, draws: list[Draw], bucket: int, bad: list[str]) -> Batch | None:
        """The batch with clips of this bucket, or None if none of them is whole. Adds to `bad`."""
        members = np.flatnonzero(self._bucket == bucket)
        video = _room(len(draws), self._clips.shapes[members[0]])
        batch = Batch(video, [], [], [], [], draws, bad)
        for pixels, draw in zip(video.numpy(), draws, strict=True):
            found = self._first_whole(pixels, _candidates(draw, members), bad)
            if found is None:
                return None
            sample, record = found
            batch.text.append(sample.text.decode())
            batch.caption.append(record.caption)
            batch.fps.append(record.fps)
            batch.keys.append(sample.key)
        return batch

    def _first_whole(self, pixels: Pixels, numbers: Iterator[int], bad: list[str]) -> tuple[Sample, Record] | None:
        for number in numbers:
            if number not in self._lost:
                try:
                    return self._clips.decode_into(pixels, number)
                except DamagedShard as damage:
                    if not self._skipping:
                        raise
                    self._lost[number] = str(damage)
            bad.append(self._lost[number])
        return None


def _candidates(draw: Draw, members: Numbers) -> Iterator[int]:
    """The clip itself, if it is of these, then what may stand in for it: all others, from a place of its own on."""
    if draw.number in members:
        yield draw.number
    start = int(hashed(np.array([draw.number]), draw.epoch)[0] % np.uint64(len(members)))
    yield from (int(number) for number in np.roll(members, -start) if number != draw.number)


def _room(clips: int, shape: Numbers) -> torch.Tensor:
    """For the pixels: in a worker, where the main process sees them too, so that nothing is copied."""
    frames, width, height = (int(side) for side in shape)
    size = (clips, frames, height, width, 3)
    if get_worker_info() is None:
        return torch.empty(size, dtype=torch.uint8)
    try:
        storage = torch.UntypedStorage._new_shared(int(np.prod(size)), device="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise StorageFault(
            f"no shared memory for a batch of {np.prod(size) / 1e6:,.0f} MB ({first_line(error)});"
            " enlarge /dev/shm, or take fewer workers or a smaller prefetch"
        ) from error
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(size)
