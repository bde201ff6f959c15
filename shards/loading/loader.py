"""Batches for training: samples in an endless shuffled order, prefetched by workers, resumed anywhere.

The order is deterministic: it depends on the data and the seed alone. The state to resume from is a few integers.

Without a dealing the ranks take the micro-batches of the order in turn. With one (`shards.loading.deal`) the order's
micro-batches decide the samples of each global batch only, and the ranks get pieces of it, of like cost in each turn.
"""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from nextscene.common.errors import UsageError
from nextscene.shards.format.tar import DamagedShard
from nextscene.shards.loading.buffer_pool import BufferPool
from nextscene.shards.loading.collate import Batch, CollatedBatch, CollateTask, Collator
from nextscene.shards.loading.deal import Dealer, Dealing, Piece
from nextscene.shards.loading.sample_set import BatchOrder, SampleSet

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

    With a `dealing` the next micro-batches of the sequence are dealt, a global batch at a time, and `position` moves
    with the last piece of each. A loader with another `micro_batch` may resume from its state: it continues in the
    sequence of the state, and only its pieces have another size.
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
        dealing: Dealing | None = None,
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
        if dealing and dealing.global_batch % micro_batch:
            raise ValueError(f"a global batch of {dealing.global_batch} is not a multiple of {micro_batch}")
        self._clips = clips
        self._order = clips.batch_order(micro_batch, seed, window)
        self._rank, self._world = rank, world
        self._dealing, self._micro_batch = dealing, micro_batch
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
        if self._dealing:
            self._continue_order(state.get("micro_batch"), self._dealing.global_batch)
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

    def _continue_order(self, micro_batch: object, global_batch: int) -> None:
        """Take the order of micro-batches of this size, if global batches can be made of them."""
        if type(micro_batch) is int and micro_batch > 0 and global_batch % micro_batch == 0:
            self._settings["micro_batch"] = micro_batch
            self._order = self._clips.batch_order(micro_batch, self._settings["seed"], self._settings["window"])

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
            if collated.batch.last:
                self._position += self._dealt_together
            yield _with_tensor(collated, buffers)

    @property
    def _dealt_together(self) -> int:
        """The micro-batches of the order that the ranks are given together, in one turn or in one global batch."""
        return self._dealing.global_batch // self._settings["micro_batch"] if self._dealing else self._world

    def _pieces(self) -> Iterator[Piece]:
        """Yield the pieces of this rank from the present position on. Endless."""
        if not self._dealing:
            yield from map(Piece, self._order.batches(self._position, self._rank, self._world))
            return
        dealer = Dealer(self._dealing.costs, self._order.bucket, self._micro_batch, self._world)
        batches, count = self._order.batches(self._position), self._dealt_together
        while True:
            refs = [ref for batch in islice(batches, count) for ref in batch]
            yield from (pieces[self._rank] for pieces in dealer.deal(refs))

    def _collated(self, buffers: BufferPool) -> Iterator[CollatedBatch | Exception]:
        return iter(
            DataLoader(
                Collator(self._clips, self._order.bucket, buffers, skip_bad=self._max_bad_clips > 0),
                batch_size=None,
                sampler=_Tasks(self._pieces(), buffers),
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

    def __init__(self, pieces: Iterator[Piece], buffers: BufferPool) -> None:
        self._pieces = pieces
        self._buffers = buffers

    def __iter__(self) -> Iterator[CollateTask]:
        return (CollateTask(piece, self._buffers.acquire()) for piece in self._pieces)


def _with_tensor(collated: CollatedBatch, buffers: BufferPool) -> Batch:
    if collated.slot is None:
        return collated.batch
    return collated.batch._replace(video=buffers.tensor(collated.slot))


def _largest(clips: SampleSet, order: BatchOrder) -> int:
    """Return the bytes of a sample of the largest bucket."""
    return max(clips.array_spec(int(number)).bytes for number in np.unique(order.bucket, return_index=True)[1])


def _identity(batch: Any) -> Any:
    return batch
