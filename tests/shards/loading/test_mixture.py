"""Several sets as one: in proportion, each in its own order, one sequence for every world size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.shards.format.layout import ShardName
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.interleave import WeightedInterleave
from nextscene.shards.loading.latent_dataset import LatentDataset
from nextscene.shards.loading.loader import Batch, Loader, StateMismatch
from nextscene.shards.loading.mixture import Mixture, MixtureOrder
from nextscene.shards.loading.shuffle import SampleRef
from tests.shards.clips import clip_dataset, shades
from tests.shards.latents import latent_dataset
from tests.shards.loading.test_interleave import by_hand as turn_by_hand
from tests.shards.loading.test_interleave import weights
from tests.shards.loading.test_shuffle import by_hand as order_by_hand
from tests.shards.loading.test_shuffle import orders

pytestmark = pytest.mark.slow

WORLDS = [1, 2, 3, 4]


@st.composite
def mixed(draw: st.DrawFn) -> MixtureOrder:
    shares = draw(weights)
    return MixtureOrder(tuple(draw(orders()) for _ in shares), WeightedInterleave(shares))


def begins(order: MixtureOrder) -> list[int]:
    return [sum(len(one.bucket) for one in order.orders[:source]) for source in range(len(order.orders))]


def by_hand(order: MixtureOrder) -> Iterator[list[SampleRef]]:
    """The same sequence, turn by turn and sample by sample."""
    each = [order_by_hand(one) for one in order.orders]
    for place in count():
        source = turn_by_hand(order.interleave.weights, place)
        yield [SampleRef(begins(order)[source] + draw.number, draw.epoch) for draw in next(each[source])]


@given(mixed(), st.integers(0, 60))
def test_the_sequence_is_that_of_sets_that_take_turns(order: MixtureOrder, position: int) -> None:
    wanted = list(islice(by_hand(order), position, position + 40))
    assert list(islice(order.batches(position), 40)) == wanted


@given(mixed(), st.sampled_from(WORLDS), st.sampled_from(WORLDS), st.integers(0, 20), st.integers(0, 15))
def test_any_world_that_stops_anywhere_is_continued_by_any_other(
    order: MixtureOrder, before: int, after: int, start: int, steps: int
) -> None:
    first = [islice(order.batches(start, rank, before), steps) for rank in range(before)]
    second = [islice(order.batches(start + before * steps, rank, after), 6) for rank in range(after)]
    together = [batch for ranks in (first, second) for step in zip(*ranks, strict=True) for batch in step]
    assert together == list(islice(order.batches(start), len(together)))


@settings(max_examples=50)
@given(mixed())
def test_each_set_goes_on_in_its_own_order_unbroken_and_has_its_share(order: MixtureOrder) -> None:
    drawn: dict[int, list[list[SampleRef]]] = {source: [] for source in range(len(order.orders))}
    for batch in islice(order.batches(), 80):
        sources = {int(np.searchsorted(begins(order), draw.number, side="right")) - 1 for draw in batch}
        (source,) = sources
        drawn[source].append([SampleRef(draw.number - begins(order)[source], draw.epoch) for draw in batch])
    for (source, batches), weight in zip(drawn.items(), order.interleave.weights, strict=True):
        assert batches == list(islice(order.orders[source].batches(), len(batches)))
        assert abs(len(batches) - 80 * weight / sum(order.interleave.weights)) <= 3


@given(mixed(), st.integers(0, 60))
def test_a_micro_batch_holds_one_bucket_and_no_two_sets_share_one(order: MixtureOrder, position: int) -> None:
    for batch in islice(order.batches(position), 20):
        assert len({int(order.bucket[draw.number]) for draw in batch}) == 1
    edges = [*begins(order), len(order.bucket)]
    sets = [{*order.bucket[begin:end]} for begin, end in pairwise(edges)]
    assert sum(map(len, sets)) == len(set().union(*sets))


@settings(max_examples=50)
@given(mixed())
def test_no_draw_comes_twice(order: MixtureOrder) -> None:
    drawn = Counter(draw for batch in islice(order.batches(), 60) for draw in batch)
    assert set(drawn.values()) == {1}


@given(orders(), st.floats(1e-6, 1e6), st.integers(0, 50))
def test_a_mixture_of_one_set_is_that_set_s_own_order(order: Any, weight: float, position: int) -> None:
    alone = MixtureOrder((order,), WeightedInterleave((weight,)))
    assert list(islice(alone.batches(position), 20)) == list(islice(order.batches(position), 20))
    assert alone.epoch_at(position) == order.epoch_at(position)


@given(mixed(), st.integers(0, 40))
def test_the_epoch_at_a_position_is_that_of_the_draw_that_completes_it(order: MixtureOrder, position: int) -> None:
    assert order.epoch_at(position) == next(order.batches(position))[-1].epoch


@given(mixed())
def test_far_positions_are_reached_at_once(order: MixtureOrder) -> None:
    far = 10**15
    assert next(order.batches(far, rank=1, world=2)) == next(order.batches(far + 1))


# ---- of real sets --------------------------------------------------------------------------------------------------

FIRST, SECOND = [9, 17, 9, 17, 1, 9], [9, 25, 9, 9, 25, 9, 9]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[ClipDataset]:
    return [ClipDataset(clip_dataset(tmp_path_factory.mktemp("clips"), lengths).uri) for lengths in (FIRST, SECOND)]


def take(loader: Loader, batches: int) -> list[Batch]:
    return list(islice(loader, batches))


def told(batch: Batch) -> list[tuple[list[str], list[int], list[SampleRef]]]:
    return [(batch.keys, batch.source, batch.refs)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_clips_of_all_sets_and_says_of_which(sets: list[ClipDataset], workers: int) -> None:
    mixture = Mixture(sets, [1, 2])
    assert len(mixture) == 13
    order = mixture.batch_order(2, 5, 8)
    batches = take(Loader(mixture, micro_batch=2, seed=5, workers=workers), 15)
    for batch, draws in zip(batches, order.batches(), strict=False):
        source = int(draws[0].number >= len(FIRST))
        own = [draw.number - len(FIRST) * source for draw in draws]
        assert (batch.refs, batch.source) == (draws, [source] * 2)
        assert batch.keys == [f"{number:024x}" for number in own]
        assert (batch.text, batch.caption) == ([f"scene {n}" for n in own], [f"caption {n}" for n in own])
        frames = (FIRST, SECOND)[source][own[0]]
        assert mixture.shapes[draws[0].number].tolist()[0] == frames
        assert shades(batch.video.numpy()) == [20 + 2 * number + frame for number in own for frame in range(frames)]
    assert Counter(batch.source[0] for batch in batches) == {0: 6, 1: 9}


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 1), (3, 2), (4, 3)])
def test_a_loader_of_a_mixture_is_resumed_by_any_number_of_ranks(
    sets: list[ClipDataset], before: int, after: int
) -> None:
    def loaders(world: int) -> list[Loader]:
        return [Loader(Mixture(sets, [2, 1]), micro_batch=2, rank=rank, world=world) for rank in range(world)]

    def laid_together(loaders: list[Loader], steps: int) -> list[Any]:
        each = [[told(batch) for batch in take(loader, steps)] for loader in loaders]
        return [batch for step in zip(*each, strict=True) for batch in step]

    first = loaders(before)
    together = laid_together(first, 4)
    second = loaders(after)
    for loader in second:
        loader.load_state_dict(first[0].state_dict())
    together += laid_together(second, 3)
    assert together == laid_together(loaders(1), len(together))


def test_a_state_of_another_mixture_is_refused(sets: list[ClipDataset]) -> None:
    state = Loader(Mixture(sets, [1, 2]), micro_batch=2).state_dict()
    Loader(Mixture(sets, [0.5, 1]), micro_batch=2).load_state_dict(state)
    for other in (Mixture(sets, [2, 1]), Mixture(sets[::-1], [1, 2]), sets[0]):
        with pytest.raises(StateMismatch, match="another dataset or split, max_frames, size or weights"):
            Loader(other, micro_batch=2).load_state_dict(state)


def test_a_bad_clip_is_replaced_by_one_of_its_own_set(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second")]
    out = [clip_dataset(folder, [9, 9, 9]) for folder in folders][1]
    shard = ShardName("train", 0).tar
    data = bytearray(out.read(shard))
    data[data.index(f"{1:024x}.mp4".encode()) + 1000] ^= 1
    out.write(shard, bytes(data))
    mixture = Mixture([ClipDataset(str(folder)) for folder in folders], [1, 1])
    batches = take(Loader(mixture, micro_batch=1, max_bad_clips=1), 24)
    assert [batch.source[0] for batch in batches] == [int(batch.refs[0].number >= 3) for batch in batches]
    drawn = Counter((batch.source[0], int(batch.keys[0], 16)) for batch in batches)
    assert (1, 1) not in drawn and len(drawn) == 5


def test_sets_of_different_kinds_do_not_mix(sets: list[ClipDataset], tmp_path: Path) -> None:
    latents = LatentDataset(latent_dataset(tmp_path, [9]).uri)
    with pytest.raises(ValueError, match="sets of clips and of latents do not mix"):
        Mixture([*sets, latents], [1, 1, 1])


@pytest.mark.parametrize("shares", [[1], [1, 1, 1], [], [1, 0], [1, -2]])
def test_weights_that_do_not_fit_are_refused(sets: list[ClipDataset], shares: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        Mixture(sets, shares)


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Mixture([], [])
