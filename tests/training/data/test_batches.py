"""Prepared batches: one ahead, in a thread that ends; errors when they are due; the state of what was consumed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count, islice
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from nextscene.shards.loading.collate import Batch
from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.data.batches import BatchPreparer, TrainingBatch, one_step
from nextscene.training.model.grid import Grid
from nextscene.training.model.language import TokenBatch

THREAD = "prepare-batch"


class Numbers:
    """A loader of batches that are numbers; some of them are the last ones of a step. It fails at one of them."""

    def __init__(self, fails_at: int = -1) -> None:
        self.position, self.readers, self._fails_at = 0, list[str](), fails_at

    def __iter__(self) -> Iterator[Batch]:
        for number in count(self.position):
            self.readers.append(threading.current_thread().name)
            if number == self._fails_at:
                raise OSError("the disk is gone")
            self.position = number + 1
            refs = [SampleRef(number, 0)]
            yield Batch(torch.zeros(1), [""], [""], [16.0], [""], [0], refs, [], 1.0, number % 3 == 2)

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


class Preparer(BatchPreparer):
    """Notes what it has prepared, and where."""

    def __init__(self, loader: Numbers) -> None:
        vae = SimpleNamespace(temporal_compression_ratio=4, spatial_compression_ratio=4)
        encoder = SimpleNamespace(vae=vae, device=torch.device("cpu"))
        super().__init__(cast(Any, loader), cast(Any, encoder), cast(Any, None), cast(Any, None), 0)
        self.prepared: list[tuple[int, str]] = []

    def _prepare(self, batch: Batch) -> TrainingBatch:
        self.prepared.append((batch.refs[0].number, threading.current_thread().name))
        none = torch.zeros(1)
        words, grid = TokenBatch(none, none), Grid(1, 1, 1)
        return TrainingBatch(
            words, [""], [0], batch.refs, none, none, none, none, none, grid, [""], 0, batch.weight, batch.last
        )


def numbers(batches: Iterator[TrainingBatch], most: int) -> list[int]:
    return [batch.refs[0].number for batch in islice(batches, most)]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD)]


def test_one_batch_is_prepared_ahead_and_the_state_is_of_the_consumed_ones() -> None:
    preparer = Preparer(loader := Numbers())
    assert preparer.state_dict() == {"position": 0}
    batches = iter(preparer)
    for taken in range(1, 5):
        assert numbers(batches, 1) == [taken - 1]
        while len(preparer.prepared) <= taken:
            time.sleep(0.001)
        assert preparer.state_dict() == {"position": taken}
    batches.close()
    assert [number for number, _ in preparer.prepared] == [0, 1, 2, 3, 4]
    assert all(thread.startswith(THREAD) for _, thread in preparer.prepared)
    assert loader.readers[0] == threading.current_thread().name  # whose children the loader's workers are
    assert threads() == []


def test_another_iteration_goes_on_behind_what_was_consumed() -> None:
    preparer = Preparer(Numbers())
    batches = iter(preparer)
    assert numbers(batches, 3) == [0, 1, 2]
    batches.close()
    again = iter(preparer)
    assert numbers(again, 2) == [3, 4]
    again.close()


@pytest.mark.parametrize("at", [0, 1, 3])
def test_an_error_is_raised_when_its_batch_is_due(at: int) -> None:
    preparer = Preparer(Numbers(fails_at=at))
    batches = iter(preparer)
    assert numbers(batches, at) == list(range(at))
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert threads() == []
    assert preparer.state_dict() == {"position": at}


def test_the_time_of_every_wait_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which each wait takes a second: for the first samples, and for each prepared batch."""
    clock = count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    preparer = Preparer(Numbers())
    batches = iter(preparer)
    numbers(batches, 3)
    batches.close()
    assert preparer.wait_seconds == 4


def test_a_step_is_all_batches_to_its_last() -> None:
    batches = iter(Preparer(Numbers()))
    assert [[batch.refs[0].number for batch in one_step(batches)] for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
    batches.close()
