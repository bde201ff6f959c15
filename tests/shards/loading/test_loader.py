"""The loader: the batches of its order, whoever decodes them; resumed anywhere; bad clips raised or counted."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from nextscene.common.storage import Storage, StorageFault
from nextscene.shards.format.layout import ShardName
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.deal import Dealing
from nextscene.shards.loading.decode import NoDecoder
from nextscene.shards.loading.loader import Batch, Loader, StateMismatch, TooManyBadClips
from nextscene.shards.loading.sample_set import Memory, SampleText
from nextscene.shards.loading.shuffle import ShuffleOrder
from tests.shards.clips import clip_dataset, shades

pytestmark = pytest.mark.slow

LENGTHS = [9, 17, 9, 17, 1, 9, 17, 1, 9, 9, 17, 9, 1, 9, 17, 9]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return clip_dataset(tmp_path_factory.mktemp("clips"), LENGTHS)


@pytest.fixture(scope="module")
def clips(out: Storage) -> ClipDataset:
    return ClipDataset(out.uri)


def take(loader: Loader, batches: int) -> list[Batch]:
    return list(islice(loader, batches))


def keys(batches: list[Batch]) -> list[list[str]]:
    return [batch.keys for batch in batches]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_follow_the_order_with_their_own_pixels_for_any_workers(clips: ClipDataset, workers: int) -> None:
    buckets = np.unique(clips.shapes, axis=0, return_inverse=True)[1].reshape(-1)
    order = ShuffleOrder(clips.reader.index.shard, buckets, 3, seed=5)
    for batch, draws in zip(
        take(Loader(clips, micro_batch=3, seed=5, workers=workers), 12), order.batches(), strict=False
    ):
        assert batch.refs == draws
        assert batch.keys == [f"{draw.number:024x}" for draw in draws]
        assert batch.text == [f"scene {draw.number}" for draw in draws]
        assert batch.caption == [f"caption {draw.number}" for draw in draws]
        frames, width, height = clips.shapes[draws[0].number]
        assert tuple(batch.video.shape) == (3, frames, height, width, 3)
        assert shades(batch.video.numpy()) == [20 + 2 * d.number + frame for d in draws for frame in range(frames)]
        assert batch.fps == [16.0] * 3 and batch.bad == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 7])
def test_a_loader_goes_on_where_another_stopped_in_the_middle_of_an_epoch(
    clips: ClipDataset, workers: int, stop: int
) -> None:
    undisturbed = keys(take(Loader(clips, micro_batch=2, seed=1), 16))
    first = Loader(clips, micro_batch=2, seed=1, workers=workers)
    assert keys(take(first, stop)) == undisturbed[:stop]
    second = Loader(clips, micro_batch=2, seed=1, workers=workers)
    second.load_state_dict(first.state_dict())
    assert keys(take(second, 16 - stop)) == undisturbed[stop:]


class LeftBehind:
    """Writes down which process lets it go."""

    def __init__(self, note: Path) -> None:
        self.note, self.me = note, self

    def __del__(self) -> None:
        self.note.write_text(str(os.getpid()))


class Collecting(ClipDataset):
    def decode_into(self, memory: Memory, number: int) -> SampleText:
        gc.collect()
        return super().decode_into(memory, number)


def test_what_a_trainer_left_behind_is_not_let_go_by_its_workers(clips: ClipDataset, tmp_path: Path) -> None:
    collecting = Collecting(clips.reader.location, max_frames=65)
    note = tmp_path / "let go by"
    gc.disable()
    try:
        LeftBehind(note)
        take(Loader(collecting, micro_batch=2, workers=1), 2)
        assert not note.exists()
    finally:
        gc.enable()
    gc.collect()
    assert note.read_text() == str(os.getpid())


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 1), (3, 2), (2, 4)])
def test_another_number_of_ranks_goes_on_in_the_same_sequence(clips: ClipDataset, before: int, after: int) -> None:
    undisturbed = keys(take(Loader(clips, micro_batch=2), before * 4 + after * 3))
    ranks = [Loader(clips, micro_batch=2, rank=rank, world=before) for rank in range(before)]
    taken = [keys(take(loader, 4)) for loader in ranks]
    states = [loader.state_dict() for loader in ranks]
    assert states == [states[0]] * before
    together = [batch for step in zip(*taken, strict=True) for batch in step]
    resumed = [Loader(clips, micro_batch=2, rank=rank, world=after) for rank in range(after)]
    for loader in resumed:
        loader.load_state_dict(states[0])
    together += [batch for step in zip(*(keys(take(loader, 3)) for loader in resumed), strict=True) for batch in step]
    assert together == undisturbed


# ---- dealt by cost -------------------------------------------------------------------------------------------------

GLOBAL = 8


def dealt(clips: ClipDataset, rank: int = 0, world: int = 1, micro_batch: int = 2, workers: int = 0) -> Loader:
    """A loader that deals by the clips' lengths."""
    dealing = Dealing(GLOBAL, clips.shapes[:, 0])
    return Loader(clips, micro_batch=micro_batch, seed=1, rank=rank, world=world, workers=workers, dealing=dealing)


def steps(loaders: list[Loader], count: int) -> list[list[str]]:
    """The clips of each global batch, those that count, of all ranks together."""
    ranks = [iter(loader) for loader in loaders]
    found = []
    for _ in range(count):
        own: list[str] = []
        turns = set()
        for batches in ranks:
            pieces = [next(batches)]
            while not pieces[-1].last:
                pieces.append(next(batches))
            own += [key for piece in pieces if piece.weight for key in piece.keys]
            turns.add(len(pieces))
        assert len(turns) == 1
        found.append(sorted(own))
    return found


def undealt(clips: ClipDataset, count: int, micro_batch: int = 2) -> list[list[str]]:
    """The clips of each global batch, by the order alone."""
    together = GLOBAL // micro_batch
    batches = keys(take(Loader(clips, micro_batch=micro_batch, seed=1), count * together))
    return [
        sorted(key for batch in batches[begin : begin + together] for key in batch)
        for begin in range(0, count * together, together)
    ]


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (3, 0), (5, 0), (2, 1)])
def test_any_number_of_ranks_is_dealt_the_global_batches_of_the_order(
    clips: ClipDataset, world: int, workers: int
) -> None:
    assert steps([dealt(clips, rank, world, workers=workers) for rank in range(world)], 4) == undealt(clips, 4)


def test_a_dealt_batch_is_its_clips_and_its_state_resumes_at_a_global_batch(clips: ClipDataset) -> None:
    loader = dealt(clips, 1, 3)
    batches = iter(loader)
    while (batch := next(batches)) and not batch.last:
        assert batch.keys == [f"{ref.number:024x}" for ref in batch.refs]
        assert loader.position == 0
    assert loader.position == GLOBAL // 2


@pytest.mark.parametrize(("world", "micro_batch"), [(1, 4), (3, 2), (2, 1), (5, 8)])
def test_other_ranks_and_micro_batches_continue_with_the_same_global_batches(
    clips: ClipDataset, world: int, micro_batch: int
) -> None:
    before = [dealt(clips, rank, 2) for rank in range(2)]
    begun = steps(before, 2)
    state = before[0].state_dict()
    assert before[1].state_dict() == state
    after = [dealt(clips, rank, world, micro_batch) for rank in range(world)]
    for loader in after:
        loader.load_state_dict(state)
    assert begun + steps(after, 2) == undealt(clips, 4)
    assert after[0].state_dict() == state | {"position": 4 * GLOBAL // 2}


def test_a_micro_batch_of_which_no_global_batch_is_made_is_refused(clips: ClipDataset) -> None:
    with pytest.raises(ValueError, match="a global batch of 8 is not a multiple of 3"):
        dealt(clips, micro_batch=3)
    for micro_batch in (3, 0, None, "2"):
        with pytest.raises(StateMismatch, match="micro_batch"):
            dealt(clips).load_state_dict(dealt(clips).state_dict() | {"micro_batch": micro_batch})  # type: ignore[dict-item]


# ---- states --------------------------------------------------------------------------------------------------------


def test_the_state_is_a_few_integers(clips: ClipDataset) -> None:
    loader = Loader(clips, micro_batch=2, seed=9)
    take(loader, 3)
    state = loader.state_dict()
    assert len(state) < 8 and all(type(value) is int for value in state.values())
    assert (state["position"], state["seed"], loader.position) == (3, 9, 3)


def test_the_epoch_is_that_of_the_next_batch(clips: ClipDataset) -> None:
    loader = Loader(clips, micro_batch=4)
    for batch in islice(loader, 12):
        before = Loader(clips, micro_batch=4)
        before.load_state_dict(loader.state_dict() | {"position": loader.position - 1})
        assert before.epoch == batch.refs[-1].epoch


@pytest.mark.parametrize("change", [{"seed": 2}, {"micro_batch": 3}, {"window": 1}])
def test_a_state_of_another_order_is_refused_by_what_differs(clips: ClipDataset, change: dict[str, int]) -> None:
    state = Loader(clips, micro_batch=2, seed=1).state_dict()
    with pytest.raises(StateMismatch, match=next(iter(change))):
        Loader(clips, **{"micro_batch": 2, "seed": 1, **change}).load_state_dict(state)  # type: ignore[arg-type]


def test_a_state_of_other_clips_is_refused(clips: ClipDataset, out: Storage, tmp_path: Path) -> None:
    state = Loader(clips, micro_batch=2).state_dict()
    others = [ClipDataset(clip_dataset(tmp_path, LENGTHS[:-1]).uri), ClipDataset(out.uri, max_frames=9)]
    for other in others:
        with pytest.raises(StateMismatch, match="clips"):
            Loader(other, micro_batch=2).load_state_dict(state)
    Loader(ClipDataset(out.uri), micro_batch=2).load_state_dict(state)


def test_clips_are_recognized_with_an_index_made_from_receipts(tmp_path: Path) -> None:
    out = clip_dataset(tmp_path, LENGTHS)
    state = Loader(ClipDataset(out.uri), micro_batch=2).state_dict()
    out.delete("index/train.parquet")
    assert Loader(ClipDataset(out.uri), micro_batch=2).state_dict() == state


@pytest.mark.parametrize(("rank", "world"), [(1, 1), (-1, 2), (0, 0)])
def test_a_rank_outside_its_world_is_refused(clips: ClipDataset, rank: int, world: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} of a world of {world}"):
        Loader(clips, micro_batch=1, rank=rank, world=world)


# ---- bad clips -----------------------------------------------------------------------------------------------------


def spoil(out: Storage, *numbers: int, per_shard: int = 4) -> None:
    """Flips a byte in the video of each of these clips."""
    for number in numbers:
        shard = ShardName("train", number // per_shard)
        data = bytearray(out.read(shard.tar))
        data[data.index(f"{number:024x}.mp4".encode()) + 1000] ^= 1
        out.write(shard.tar, bytes(data))


@pytest.fixture
def spoilt(tmp_path: Path) -> ClipDataset:
    out = clip_dataset(tmp_path, LENGTHS)
    spoil(out, 2, 6)
    return ClipDataset(out.uri)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_clip_is_raised_by_default_with_shard_sample_and_reason(spoilt: ClipDataset, workers: int) -> None:
    with pytest.raises(TooManyBadClips, match=r"train/nsp-00000[01]: sample '0+[26]': .*checksum") as told:
        take(Loader(spoilt, micro_batch=2, workers=workers), 16)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_clips_are_replaced_by_others_of_their_bucket_and_told_once(
    spoilt: ClipDataset, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    loader = Loader(spoilt, micro_batch=2, workers=workers, max_bad_clips=2)
    with caplog.at_level(logging.WARNING):
        batches = take(loader, 32)  # four epochs
    whole = take(Loader(ClipDataset(spoilt.reader.location, checksums=False), micro_batch=2), 32)
    assert [batch.video.shape for batch in batches] == [batch.video.shape for batch in whole]
    drawn = Counter(key for batch in batches for key in batch.keys)
    assert not {f"{number:024x}" for number in (2, 6)} & drawn.keys()
    assert [sum("sample" in line for line in batch.bad) for batch in batches] == [
        sum(key in (f"{2:024x}", f"{6:024x}") for key in batch.keys) for batch in whole
    ]
    assert sorted(record.message.split("'")[1] for record in caplog.records) == [f"{2:024x}", f"{6:024x}"]
    assert loader.position == 32


def test_one_more_than_may_be_skipped_is_too_many(spoilt: ClipDataset) -> None:
    with pytest.raises(TooManyBadClips, match=r"2 clips are bad, 1 may be: train/nsp-00000[01]: sample"):
        take(Loader(spoilt, micro_batch=2, max_bad_clips=1), 16)


def test_the_draws_of_a_batch_stay_those_of_the_order_whoever_stands_in(spoilt: ClipDataset) -> None:
    loader = Loader(spoilt, micro_batch=2, max_bad_clips=2)
    whole = Loader(ClipDataset(spoilt.reader.location, checksums=False), micro_batch=2)
    assert [batch.refs for batch in take(loader, 24)] == [batch.refs for batch in take(whole, 24)]


def test_a_bucket_of_damaged_clips_is_replaced_so_that_every_rank_has_a_batch(tmp_path: Path) -> None:
    out = clip_dataset(tmp_path, [9, 9, 17, 17, 17])
    spoil(out, 0, 1)
    batches = take(Loader(ClipDataset(out.uri), micro_batch=1, max_bad_clips=2), 10)
    assert {batch.video.shape[1] for batch in batches} == {17}
    assert {key for batch in batches for key in batch.keys} == {f"{number:024x}" for number in (2, 3, 4)}


def test_where_no_clip_is_whole_that_is_told(tmp_path: Path) -> None:
    out = clip_dataset(tmp_path, [9, 9, 17])
    spoil(out, 0, 1, 2)
    with pytest.raises(TooManyBadClips, match="no other clip is whole"):
        take(Loader(ClipDataset(out.uri), micro_batch=1, max_bad_clips=9), 1)


def test_clips_of_a_lost_shard_get_many_replacements_and_are_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = clip_dataset(tmp_path, [9] * 32, per_shard=8)
    spoil(out, *range(8), per_shard=8)
    clips = ClipDataset(out.uri)
    tried: Counter[int] = Counter()
    decode = clips.decode_into
    monkeypatch.setattr(clips, "decode_into", lambda video, number: tried.update([number]) or decode(video, number))
    batches = take(Loader(clips, micro_batch=1, max_bad_clips=8), 32)
    drawn = Counter(batch.keys[0] for batch in batches)
    assert len(drawn) == 24 and max(drawn.values()) <= 4
    assert all(tried[number] == 1 for number in range(8))


def test_the_ceiling_holds_also_after_it_was_reached(spoilt: ClipDataset) -> None:
    loader = Loader(spoilt, micro_batch=2, max_bad_clips=1)
    for _ in range(2):
        with pytest.raises(TooManyBadClips, match="2 clips are bad, 1 may be"):
            take(loader, 16)


# ---- what a loader does not do -------------------------------------------------------------------------------------


def test_a_later_iteration_ends_an_earlier_one(clips: ClipDataset) -> None:
    loader = Loader(clips, micro_batch=2)
    first = iter(loader)
    begun = next(first)
    second = iter(loader)
    assert next(second).keys != begun.keys
    with pytest.raises(RuntimeError, match="ended by a later one"):
        next(first)
    assert loader.position == 2


def test_a_state_that_is_loaded_ends_the_iteration_under_way(clips: ClipDataset) -> None:
    loader = Loader(clips, micro_batch=2)
    start, under_way = loader.state_dict(), iter(loader)
    begun = next(under_way)
    loader.load_state_dict(start)
    with pytest.raises(RuntimeError, match="state that was loaded"):
        next(under_way)
    assert take(loader, 1)[0].keys == begun.keys


@pytest.mark.parametrize("position", [-1, 1.5, "7", None, True])
def test_a_position_that_is_none_is_refused(clips: ClipDataset, position: object) -> None:
    loader = Loader(clips, micro_batch=2)
    with pytest.raises(StateMismatch, match="position"):
        loader.load_state_dict(loader.state_dict() | {"position": position})  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_random_numbers_of_the_program_are_left_alone(clips: ClipDataset, workers: int) -> None:
    before = torch.random.get_rng_state()
    take(Loader(clips, micro_batch=2, workers=workers), 2)
    assert torch.random.get_rng_state().equal(before)


@pytest.mark.parametrize(("workers", "prefetch"), [(-1, 2), (2, 0)])
def test_workers_that_cannot_be_are_refused(clips: ClipDataset, workers: int, prefetch: int) -> None:
    with pytest.raises(ValueError, match=f"{workers} workers that are {prefetch} micro-batches ahead"):
        Loader(clips, micro_batch=1, workers=workers, prefetch=prefetch)


@pytest.mark.parametrize("fault", [StorageFault("the disk is gone"), NoDecoder("not installed")])
def test_a_fault_in_a_worker_comes_out_as_it_is_and_is_no_bad_clip(
    clips: ClipDataset, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(clips, "decode_into", fail)
    with pytest.raises(type(fault), match=f"^{fault}$"):
        take(Loader(clips, micro_batch=2, workers=1, max_bad_clips=100), 1)


def test_workers_ignore_signals_to_the_group_and_still_deliver_batches(clips: ClipDataset) -> None:
    loader = Loader(clips, micro_batch=2, workers=1, prefetch=1)
    batches = iter(loader)
    next(batches)
    (worker,) = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        worker.send_signal(signum)
    assert len(list(islice(batches, 4))) == 4
    del batches
    worker.wait(60)


def test_a_worker_that_dies_is_told_and_the_position_stays(clips: ClipDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Loader(clips, micro_batch=2, workers=1)
    monkeypatch.setattr(clips, "decode_into", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(RuntimeError, match=r"worker.* killed|exited unexpectedly"):
        take(loader, 1)
    assert loader.position == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_are_kept_stay_as_they_are(clips: ClipDataset, workers: int) -> None:
    """More of them than there are buffers, while others are released."""
    kept = []
    for number, batch in enumerate(islice(Loader(clips, micro_batch=2, seed=4, workers=workers), 40)):
        if number % 3:
            kept.append((batch, batch.video.clone()))
    assert all(batch.video.equal(then) for batch, then in kept)


def test_buffers_are_used_again(clips: ClipDataset) -> None:
    places = [batch.video.data_ptr() for batch in islice(Loader(clips, micro_batch=2, workers=1), 40)]
    assert len(set(places)) <= 5
