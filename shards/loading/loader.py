"""Batches for training: samples in an endless shuffled order, prefetched by workers, resumed anywhere.

The order is deterministic: it depends on the data and the seed alone. The state to resume from is a few integers.
"""

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

_BUFFERS_IN_USE = 3  # one being filled, one that the caller has, one that it has not yet released

_OTHER_CLIPS = " (another dataset or split, max_frames, size or weights, or shards made again)"

_log = logging.getLogger(__name__)


class TooManyBadClips(DamagedShard):
    """More clips were bad than may be skipped. The message names the last one and its fault."""


class StateMismatch(UsageError, ValueError):
    """A state that was saved by a loader of another sequence."""


class Loader:
    """An endless iterator over this rank's micro-batches, in the same order for the same seed.

    The ranks take the micro-batches of one global sequence in turn. `position` is the number of micro-batches that all
    ranks together have been given. Ranks at the same step have the same state, and any number of ranks may resume from
    it.
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
        max_bad_clips: int = 0,
    ) -> None:
        """Make a loader. `micro_batch` is the batch size per rank; `window`, the number of shards shuffled together.

        `workers` processes prefetch `prefetch` micro-batches each; 0 decodes in this process, on demand. Up to
        `max_bad_clips` different bad clips, counted in each loader from its start, are replaced by others of their
        bucket, with a warning; the next one, by default the first, raises TooManyBadClips.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of a world of {world}")
        if workers < 0 or prefetch < 1:
            raise ValueError(f"{workers} workers that are {prefetch} micro-batches ahead: at least 0 and 1")
        self._clips = clips
        self._order = clips.batch_order(micro_batch, seed, window)
        self._rank, self._world = rank, world
        self._max_bad_clips = max_bad_clips
        self._bad: set[str] = set()
        self._position = 0
        self._settings = {"seed": seed, "micro_batch": micro_batch, "window": window, "clips": clips.fingerprint}
        self._workers, self._prefetch = workers, prefetch
        self._iteration = 0
        self._largest = _largest(clips, self._order) * micro_batch

    @property
    def position(self) -> int:
        return self._position

    @property
    def epoch(self) -> int:
        """Return the epoch that the next micro-batch is part of."""
        return self._order.epoch_at(self._position)

    def state_dict(self) -> dict[str, int]:
        return {"position": self._position, **self._settings}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume where another loader stopped. Raise StateMismatch for a state of other clips or another order."""
        for name, value in self._settings.items():
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
        """Iterate from the present position. Raise RuntimeError once another iteration begins or a state is loaded.

        Raise TooManyBadClips; NoDecoder; DatasetChanged if a retry has replaced the shards; StorageFault.
        """
        self._iteration += 1
        mine = self._iteration
        # A pool for each iteration: an earlier one may still hold buffers of tasks under way.
        buffers = BufferPool(self._workers * self._prefetch + _BUFFERS_IN_USE, self._largest)
        for collated in self._collated(buffers):
            if mine != self._iteration:
                raise RuntimeError("this iteration was ended by a later one, or by a state that was loaded")
            if isinstance(collated, DamagedShard):
                advice = "" if self._max_bad_clips else ". To train without such clips, raise max_bad_clips"
                raise TooManyBadClips(f"{collated}{advice}") from collated
            if isinstance(collated, Exception):
                raise collated
            self._count(collated.batch.bad)
            self._position += self._world
            yield _with_tensor(collated, buffers)

    def _collated(self, buffers: BufferPool) -> Iterator[CollatedBatch | Exception]:
        refs = self._order.batches(self._position, self._rank, self._world)
        return iter(
            DataLoader(
                Collator(self._clips, self._order.bucket, buffers, skip_bad=self._max_bad_clips > 0),
                batch_size=None,
                sampler=_Tasks(refs, buffers),
                num_workers=self._workers,
                prefetch_factor=self._prefetch if self._workers else None,
                collate_fn=_identity,
                generator=torch.Generator(),  # otherwise the workers' seeds come from the trainer's generator
                worker_init_fn=_set_up_worker,
                multiprocessing_context="fork" if self._workers else None,  # only forked workers share the buffers
            )
        )

    def _count(self, bad: list[str]) -> None:
        for clip in bad:
            if clip not in self._bad:
                self._bad.add(clip)
                _log.warning("skipped %s", clip)
        if len(self._bad) > self._max_bad_clips:
            raise TooManyBadClips(f"{len(self._bad)} clips are bad, {self._max_bad_clips} may be: {bad[-1]}")


def _set_up_worker(_worker: int) -> None:
    """Freeze the garbage collector and ignore signals, in a forked worker.

    Finalizers of the parent's objects must not run there: they may need threads that the fork lost. Signals to a whole
    group or job are for the trainer, which still needs a step's batches; a worker ends when the trainer says so, or is
    gone.
    """
    gc.freeze()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


class _Tasks:
    """The sampler: the tasks that DataLoader gives to its workers."""

    def __init__(self, refs: Iterator[list[SampleRef]], buffers: BufferPool) -> None:
        self._refs = refs
        self._buffers = buffers

    def __iter__(self) -> Iterator[CollateTask]:
        return (CollateTask(refs, self._buffers.acquire()) for refs in self._refs)


def _with_tensor(collated: CollatedBatch, buffers: BufferPool) -> Batch:
    if collated.slot is None:
        return collated.batch
    return collated.batch._replace(video=buffers.tensor(collated.slot))


def _largest(clips: SampleSet, order: BatchOrder) -> int:
    """Return the bytes of a sample of the largest bucket."""
    return max(clips.array_spec(int(number)).bytes for number in np.unique(order.bucket, return_index=True)[1])


def _identity(batch: Any) -> Any:
    return batch
