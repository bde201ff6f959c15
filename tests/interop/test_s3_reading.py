"""Clips out of an object store: the same batches as from a disk, and damage told as there."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from nextscene.common.storage import Storage
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.tar import DamagedShard
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.loader import Loader
from nextscene.shards.loading.streaming import stream
from tests.interop.test_s3 import Bucket, bucket, credentials, server
from tests.shards.clips import clip_dataset

__all__ = ["bucket", "credentials", "server"]

pytestmark = pytest.mark.slow

LENGTHS = [9, 17, 1, 9, 9, 17, 9, 1, 9]


@pytest.fixture
def both(tmp_path: Path, bucket: Bucket) -> tuple[Storage, Storage]:
    """The same clips on disk and in a bucket."""
    out = clip_dataset(tmp_path / "out", LENGTHS)
    bucket.upload(tmp_path / "out", "set")
    return out, bucket.at("set")


def test_the_loader_gives_the_batches_that_it_gives_from_a_disk(both: tuple[Storage, Storage]) -> None:
    on_disk, remote = (ClipDataset(out.uri) for out in both)
    wanted = list(islice(Loader(on_disk, micro_batch=2, seed=3), 6))
    loader = Loader(remote, micro_batch=2, seed=3, workers=2)
    for batch, same in zip(loader, wanted, strict=False):
        assert batch._replace(video=None) == same._replace(video=None)  # type: ignore[arg-type]
        assert batch.video.equal(same.video)
        if loader.position == len(wanted):
            break
    assert Loader(on_disk, micro_batch=2, seed=3).state_dict() == loader.state_dict() | {"position": 0}


def test_streaming_gives_every_clip_once(both: tuple[Storage, Storage]) -> None:
    found = sorted(item["key"] for item in DataLoader(stream(both[1].uri), batch_size=None))
    assert found == [f"{number:024x}" for number in range(len(LENGTHS))]


def test_damage_in_the_store_is_told_as_damage(both: tuple[Storage, Storage]) -> None:
    name, out = ShardName("train", 1), both[1]
    clips = ClipDataset(out.uri)
    data = out.read(name.tar)
    out.write(name.tar, data[:5000])
    with pytest.raises(DamagedShard, match=f"{name}: sample"):
        clips[5]
    with pytest.raises(DamagedShard, match=r"nsp-000001\.tar has 5,000 bytes"):
        ClipDataset(out.uri)
    out.delete(name.tar)
    with pytest.raises(DamagedShard, match=f"{name}: sample .*the file is missing"):
        clips[5]
