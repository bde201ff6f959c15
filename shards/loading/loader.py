"""Batches for training: samples in an endless order, decoded by workers, resumed anywhere by a few integers."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from nextscene.common.errors import UsageError
from nextscene.shards.format.tar import DamagedShard
from nextscene.shards.loading.buffer_pool import BufferPool
from nextscene.shards.loading.collate import Batch, CollatedBatch, CollateTask, Collator
from nextscene.shards.loading.sample_set import BatchOrder, SampleSet
from nextscene.shards.loading.shuffle import SampleRef

__all__ = ["Batch", "Loader", "StateMismatch", "TooManyBadClips"]

_ROOMS_IN_USE = 3  # one that is being filled, one that the caller has, one that it still has from before

_OTHER_CLIPS = " (another dataset or split, max_frames, size or weights, or shards made anew)"

_log = logging.getLogger(__name__)


class TooManyBadClips(DamagedShard):
    """More clips were bad than may be skipped. The message names the last one and what is wrong with it."""


class StateMismatch(UsageError, ValueError):
    """A state that was saved by a loader of another sequence."""


class Loader:
    """An endless iterator over this rank's micro-batches, which the same seed gives in the same order anywhere.

    Ranks take the micro-batches of one global sequence in turn. `position` is how many of those all ranks together have
    been given; ranks that are at the same step have the same state, and any number of ranks may go on from it.
    """

    def __init__(
        self,
        clips: SampleSet,
        *,
        micro_batch: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        prefetch: int = 2,
        window: int = 8,
        skip_at_most: int = 0,
    ) -> None:
        """`workers` processes decode ahead by `prefetch` micro-batches each; 0 decodes in this one, on demand.

        Of bad clips, up to `skip_at_most` different ones, counted in each loader from its making on, are replaced by
        others of their bucket, with a warning; the next one, by default the first, raises TooManyBadClips.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of a world of {world}")
        if workers < 0 or prefetch < 1:
            raise ValueError(f"{workers} workers that are {prefetch} micro-batches ahead: at least 0 and 1")
        self._clips = clips
        self._order = clips.order(micro_batch, seed, window)
        self._rank, self._world = rank, world
        self._skip_at_most = skip_at_most
        self._bad: set[str] = set()
        self._position = 0
        self._identity = {"seed": seed, "micro_batch": micro_batch, "window": window, "clips": clips.fingerprint}
        self._workers, self._prefetch = workers, prefetch
        self._iteration = 0
        self._largest = _largest(clips, self._order) * micro_batch

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
        """Goes on where another loader stopped. Raise StateMismatch for one of other clips or another order."""
        for name, value in self._identity.items():
            if state.get(name) != value:
                meaning = _OTHER_CLIPS if name == "clips" else ""
                raise StateMismatch(
                    f"the state to resume from has {name} {state.get(name)}, this loader has {value}{meaning}"
                )
        position = state.get("position")
        if type(position) is not int or position < 0:
            raise StateMismatch(f"the state to resume from has position {position!r}")
        self._position = position
        self._iteration += 1

    def __iter__(self) -> Iterator[Batch]:
        """From the present position on. It ends, with RuntimeError, when another iteration begins or a state is loaded.

        Raise TooManyBadClips; NoDecoder; DatasetChanged where a retry has replaced the shards; StorageFault.
        """
        self._iteration += 1
        mine = self._iteration
        # Of its own: what an iteration before this one has under way would take its rooms with it.
        rooms = BufferPool(self._workers * self._prefetch + _ROOMS_IN_USE, self._largest)
        for assembled in self._assembled(rooms):
            if mine != self._iteration:
                raise RuntimeError("this iteration was ended by a later one, or by a state that was loaded")
            if isinstance(assembled, DamagedShard):
                advice = "" if self._skip_at_most else ". To train without such clips, raise skip_at_most"
                raise TooManyBadClips(f"{assembled}{advice}") from assembled
            if isinstance(assembled, Exception):
                raise assembled
            self._count(assembled.batch.bad)
            self._position += self._world
            yield _handed_over(assembled, rooms)

    def _assembled(self, rooms: BufferPool) -> Iterator[CollatedBatch | Exception]:
        draws = self._order.batches(self._position, self._rank, self._world)
        return iter(
            DataLoader(
                Collator(self._clips, self._order.bucket, rooms, skipping=self._skip_at_most > 0),
                batch_size=None,
                sampler=_Tasks(draws, rooms),
                num_workers=self._workers,
                prefetch_factor=self._prefetch if self._workers else None,
                collate_fn=_as_it_is,
                generator=torch.Generator(),  # else the seeds of the workers are drawn from the trainer's own
                worker_init_fn=_set_aside,
                multiprocessing_context="fork" if self._workers else None,  # only so the rooms are the same
            )
        )

    def _count(self, bad: list[str]) -> None:
        for clip in bad:
            if clip not in self._bad:
                self._bad.add(clip)
                _log.warning("skipped %s", clip)
        if len(self._bad) > self._skip_at_most:
            raise TooManyBadClips(f"{len(self._bad)} clips are bad, {self._skip_at_most} may be: {bad[-1]}")


def _set_aside(_worker: int) -> None:
    """What was garbage as the worker was forked is not its own to let go: threads that belong to it are not there.

    Signals that ask a whole group or job to end are the trainer's to answer, which still wants a step's batches; a
    worker ends when the trainer says so, or is gone.
    """
    gc.freeze()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


class _Tasks:
    """The sampler: what DataLoader hands out to its workers."""

    def __init__(self, draws: Iterator[list[SampleRef]], rooms: BufferPool) -> None:
        self._draws = draws
        self._rooms = rooms

    def __iter__(self) -> Iterator[CollateTask]:
        return (CollateTask(draws, self._rooms.acquire()) for draws in self._draws)


def _handed_over(assembled: CollatedBatch, rooms: BufferPool) -> Batch:
    if assembled.lodged is None:
        return assembled.batch
    return assembled.batch._replace(video=rooms.tensor(assembled.lodged))


def _largest(clips: SampleSet, order: BatchOrder) -> int:
    """The bytes of a sample of the largest bucket."""
    return max(clips.array_spec(int(number)).bytes for number in np.unique(order.bucket, return_index=True)[1])


def _as_it_is(batch: Any) -> Any:
    return batch
