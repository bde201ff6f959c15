"""Rooms: used again only when nobody looks into them any more, and the same in a forked worker."""

from __future__ import annotations

import multiprocessing

import numpy as np
import torch

from nextscene.shards.loading.buffer_pool import BufferPool, BufferSlot

SHAPE = (2, 3, 4, 5, 3)
SIZE = 360


def test_a_room_is_free_again_when_its_last_view_is_gone() -> None:
    pool = BufferPool(1, SIZE)
    buffer = pool.acquire()
    assert buffer == 0 and pool.acquire() is None
    video = pool.tensor(BufferSlot(buffer, SHAPE))
    views = [video[0], video.view(-1)[7:9], video.numpy()[1:]]
    del video
    while views:
        assert pool.acquire() is None
        views.pop()
    assert pool.acquire() == 0


def test_buffers_do_not_overlap() -> None:
    pool = BufferPool(3, SIZE)
    tensors = [pool.tensor(BufferSlot(buffer, SHAPE)) for buffer in range(3)]
    for number, video in enumerate(tensors):
        video.fill_(number + 1)
    assert [set(video.unique().tolist()) for video in tensors] == [{1}, {2}, {3}]
    smaller = BufferSlot(1, (1, 1, 4, 5, 3))
    assert pool.memory(smaller).shape == smaller.shape and (pool.memory(smaller) == 2).all()


def test_a_forked_process_writes_into_the_same_memory() -> None:
    pool = BufferPool(2, SIZE)
    writer = multiprocessing.get_context("fork").Process(target=_fill, args=(pool,))
    writer.start()
    writer.join()
    assert writer.exitcode == 0
    assert pool.tensor(BufferSlot(1, SHAPE)).equal(torch.full(SHAPE, 9, dtype=torch.uint8))
    assert not pool.memory(BufferSlot(0, SHAPE)).any()


def _fill(pool: BufferPool) -> None:
    pool.memory(BufferSlot(1, SHAPE))[:] = np.uint8(9)
