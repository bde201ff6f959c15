"""Batches for training: an `Order` of a `ClipDataset`, decoded by workers, resumed anywhere by a few integers."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from shards.dataset import ClipDataset
from shards.order import Draw, Order
from shards.tar import DamagedShard

_log = logging.getLogger(__name__)


class TooManyBadClips(Exception):
    """More clips were bad than may be skipped. The message names the last one and what is wrong with it."""


class OtherSequence(ValueError):
    """A state that was saved by a loader of another sequence."""


class Batch(NamedTuple):
    """A micro-batch of one bucket.

    `video` is uint8 [clips, frames, height, width, RGB]; the other fields have an entry for each clip. `draws` says
    which clip it is and in which epoch; `keys` name the clips. `bad` has a line for each clip that was skipped.
    """

    video: torch.Tensor
    text: list[str]
    caption: list[str]
    fps: list[float]
    keys: list[str]
    draws: list[Draw]
    bad: list[str]


class Loader:
    """An endless iterator over this rank's micro-batches, which the same seed gives in the same order anywhere.

    Ranks take the micro-batches of one global sequence in turn. `position` is how many of those all ranks together have
    been given; ranks that are at the same step have the same state, and any number of ranks may go on from it.
    """

    def __init__(
        self,
        clips: ClipDataset,
        *,
        micro_batch: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        prefetch: int = 2,
        window: int = 8,
        skip_at_most: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """`workers` processes decode ahead by `prefetch` micro-batches each; 0 decodes in this one, on demand.

        Of bad clips, up to `skip_at_most` different ones are replaced by others of their bucket, with a warning; the
        next one, by default the first, raises TooManyBadClips.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of a world of {world}")
        self._clips = clips
        buckets = np.unique(clips.shapes, axis=0, return_inverse=True)[1].reshape(-1)
        self._order = Order(clips.reader.index.shard, buckets, micro_batch, seed, window)
        self._rank, self._world = rank, world
        self._skip_at_most = skip_at_most
        self._bad: set[str] = set()
        self._position = 0
        self._identity = {"seed": seed, "micro_batch": micro_batch, "window": window, "clips": _fingerprint(clips)}
        self._workers, self._prefetch, self._pin_memory = workers, prefetch, pin_memory

    @property
    def position(self) -> int:
        return self._position

    @property
    def epoch(self) -> int:
        """The epoch that the next micro-batch is part of."""
        return self._order.epoch_at(self._position)

    def state_dict(self) -> dict[str, int]:
        return {"position": self._position, **self._identity}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where another loader stopped. Raises OtherSequence for one of other clips or another order."""
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise OtherSequence(f"the state to resume from has {name} {state.get(name)}, this loader has {value}")
        self._position = state["position"]

    def __iter__(self) -> Iterator[Batch]:
        """From the present position on. One iteration at a time."""
        draws = self._order.batches(self._position, self._rank, self._world)
        batches = DataLoader(
            _Decoded(self._clips, self._order.bucket, skipping=self._skip_at_most > 0),
            batch_size=None,
            sampler=_Draws(draws),
            num_workers=self._workers,
            prefetch_factor=self._prefetch if self._workers else None,
            collate_fn=_as_it_is,
            pin_memory=self._pin_memory,
            # What is open to an object store does not survive a fork.
            multiprocessing_context="spawn" if self._workers and not self._clips.reader.is_local else None,
        )
        for batch in batches:
            if isinstance(batch, DamagedShard):
                raise TooManyBadClips(f"{batch}. To train without such clips, raise skip_at_most") from batch
            self._count(batch.bad)
            self._position += self._world
            yield batch

    def _count(self, bad: list[str]) -> None:
        for clip in bad:
            if clip not in self._bad:
                self._bad.add(clip)
                _log.warning("skipped %s", clip)
                if len(self._bad) > self._skip_at_most:
                    raise TooManyBadClips(f"{len(self._bad)} clips are bad, {self._skip_at_most} may be: {clip}")


class _Decoded(Dataset[Batch]):
    """Micro-batches by their draws. A bad clip's exception is returned, not raised: so it crosses processes whole."""

    def __init__(self, clips: ClipDataset, bucket: npt.NDArray[np.int64], skipping: bool) -> None:
        self._clips = clips
        self._bucket = bucket
        self._skipping = skipping

    def __getitem__(self, draws: list[Draw]) -> Batch | DamagedShard:  # type: ignore[override]
        video = _empty(len(draws), self._clips.shapes[draws[0].number])
        batch = Batch(video, [], [], [], [], [], [])
        pixels = video.numpy()
        for place, draw in enumerate(draws):
            for number in self._candidates(draw.number):
                try:
                    sample, record = self._clips.decode_into(pixels[place], number)
                except DamagedShard as damage:
                    if not self._skipping:
                        return damage
                    batch.bad.append(str(damage))
                else:
                    break
            else:
                return DamagedShard(f"{batch.bad[-1]}, and no other clip of its bucket is whole")
            batch.text.append(sample.text.decode())
            batch.caption.append(record.caption)
            batch.fps.append(record.fps)
            batch.keys.append(sample.key)
            batch.draws.append(Draw(number, draw.epoch))
        return batch

    def _candidates(self, number: int) -> Iterator[int]:
        """The clip itself, then what may stand in for it: the others of its bucket, from the next one on."""
        yield number
        alike = np.flatnonzero(self._bucket == self._bucket[number])
        yield from (int(other) for other in np.roll(alike, -int(np.searchsorted(alike, number)))[1:])


class _Draws:
    """The sampler: what DataLoader hands out to its workers."""

    def __init__(self, draws: Iterator[list[Draw]]) -> None:
        self._draws = draws

    def __iter__(self) -> Iterator[list[Draw]]:
        return self._draws


def _empty(clips: int, shape: npt.NDArray[np.int64]) -> torch.Tensor:
    """Room for a micro-batch: in a worker, where the main process sees it too, so that nothing is copied."""
    frames, width, height = (int(side) for side in shape)
    if get_worker_info() is None:
        return torch.empty((clips, frames, height, width, 3), dtype=torch.uint8)
    size = clips * frames * height * width * 3
    storage = torch.UntypedStorage._new_shared(size, device="cpu")  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(clips, frames, height, width, 3)


def _as_it_is(batch: Any) -> Any:
    return batch


def _fingerprint(clips: ClipDataset) -> int:
    """A checksum of keys and shapes, in order."""
    return zlib.crc32(clips.shapes.astype("<i8").tobytes(), zlib.crc32(clips.reader.index.key_bytes()))
