"""Rooms: used again only when nobody looks into them any more, and the same in a forked worker."""

from __future__ import annotations

import multiprocessing

import numpy as np
import torch

from nextscene.shards.loading.buffer_pool import BufferPool, BufferSlot

SHAPE = (2, 3, 4, 5, 3)
SIZE = 360


def test_a_room_is_free_again_when_its_last_view_is_gone() -> None:
    rooms = BufferPool(1, SIZE)
    room = rooms.acquire()
    assert room == 0 and rooms.acquire() is None
    video = rooms.tensor(BufferSlot(room, SHAPE))
    views = [video[0], video.view(-1)[7:9], video.numpy()[1:]]
    del video
    while views:
        assert rooms.acquire() is None
        views.pop()
    assert rooms.acquire() == 0


def test_rooms_do_not_overlap() -> None:
    rooms = BufferPool(3, SIZE)
    lent = [rooms.tensor(BufferSlot(room, SHAPE)) for room in range(3)]
    for number, video in enumerate(lent):
        video.fill_(number + 1)
    assert [set(video.unique().tolist()) for video in lent] == [{1}, {2}, {3}]
    smaller = BufferSlot(1, (1, 1, 4, 5, 3))
    assert rooms.memory(smaller).shape == smaller.shape and (rooms.memory(smaller) == 2).all()


def test_a_forked_process_writes_into_the_same_memory() -> None:
    rooms = BufferPool(2, SIZE)
    writer = multiprocessing.get_context("fork").Process(target=_fill, args=(rooms,))
    writer.start()
    writer.join()
    assert writer.exitcode == 0
    assert rooms.tensor(BufferSlot(1, SHAPE)).equal(torch.full(SHAPE, 9, dtype=torch.uint8))
    assert not rooms.memory(BufferSlot(0, SHAPE)).any()


def _fill(rooms: BufferPool) -> None:
    rooms.memory(BufferSlot(1, SHAPE))[:] = np.uint8(9)
