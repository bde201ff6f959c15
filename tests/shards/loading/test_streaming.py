"""The streaming recipe: every clip of every shard once over all ranks and workers, and no damage in silence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from nextscene.common.storage import Storage
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.tar import BLOCK, DamagedShard
from nextscene.shards.loading.clip_transform import ClipTransform
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.reader import DatasetNotFound
from nextscene.shards.loading.streaming import stream
from tests.shards.clips import clip_dataset, shades

LENGTHS = [9, 17, 1, 9] * 4


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return clip_dataset(tmp_path_factory.mktemp("clips"), LENGTHS)


def keys(out: Storage, workers: int = 0, **options: int) -> list[str]:
    return [item["key"] for item in DataLoader(stream(out.uri, **options), batch_size=None, num_workers=workers)]  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_all_ranks_and_workers_together_see_each_clip_once(out: Storage, workers: int, world: int) -> None:
    seen = Counter(key for rank in range(world) for key in keys(out, workers, rank=rank, world=world))
    assert seen == Counter(f"{number:024x}" for number in range(len(LENGTHS)))


def test_items_are_those_of_the_map_style_dataset(out: Storage) -> None:
    clips = ClipDataset(out.uri, max_frames=9, size=(40, 24))
    known = {item["key"]: item for item in clips}
    for item in stream(out.uri, transform=ClipTransform(max_frames=9, size=(40, 24))):
        wanted = known.pop(item["key"])
        assert (item["video"] == wanted["video"]).all()
        assert {**item, "video": None} == {**wanted, "video": None}
    assert not known


def test_the_frames_are_the_clip_s_own(out: Storage) -> None:
    for item in stream(out.uri):
        number = int(item["key"], 16)
        assert shades(item["video"])[0] == 20 + 2 * number


def test_seeds_and_epochs_give_other_orders_and_the_same_ones_again(out: Storage) -> None:
    orders = [tuple(keys(out, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert orders[3] == tuple(keys(out, seed=1, epoch=1))


DAMAGE = {
    "cut between members": lambda data: data[: 3 * BLOCK],
    "cut between samples": lambda data: data[: data.index(f"{5:024x}.json".encode())],
    "a byte flipped in a header": lambda data: data[:10] + bytes([data[10] ^ 1]) + data[11:],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_damage_is_raised_with_the_shard_s_name(tmp_path: Path, damage: str) -> None:
    out = clip_dataset(tmp_path, LENGTHS)
    name = ShardName("train", 1)
    out.write(name.tar, DAMAGE[damage](out.read(name.tar)))
    with pytest.raises(DamagedShard, match=str(name)):
        keys(out)


def test_a_shard_that_lacks_samples_or_is_not_there_is_damaged(tmp_path: Path) -> None:
    out = clip_dataset(tmp_path, LENGTHS)
    whole = out.read(ShardName("train", 1).tar)
    out.write(ShardName("train", 1).tar, whole[whole.index(f"{5:024x}.json".encode()) :])
    with pytest.raises(DamagedShard, match="train/nsp-000001 holds 3 samples, 4 were sealed"):
        keys(out)
    out.write(ShardName("train", 1).tar, whole)
    out.delete(ShardName("train", 2).tar)
    with pytest.raises(DamagedShard, match=r"nsp-000002\.tar is missing"):
        keys(out)


def test_a_place_without_a_dataset_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="holds no dataset"):
        stream(str(tmp_path))


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_its_world_is_refused(out: Storage, rank: int, world: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} of a world of {world}"):
        stream(out.uri, rank=rank, world=world)
