"""The map-style dataset: `len`, `[]`, and DataLoader, with the frames that a video autoencoder can take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from nextscene.common.storage import Storage
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.tar import DamagedShard
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.reader import DatasetChanged, DatasetNotFound
from tests.shards.clips import HEIGHT, WIDTH, clip, clip_dataset, shades
from tests.shards.format.test_index import seal_latents
from tests.shards.samples import sample_of, seal_dataset

LENGTHS = [9, 10, 16, 17, 24, 25, 8, 1]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return clip_dataset(tmp_path_factory.mktemp("clips"), LENGTHS)


def test_each_clip_is_there_with_its_text_and_its_first_8k_plus_1_frames(out: Storage) -> None:
    clips = ClipDataset(out.uri)
    assert len(clips) == len(LENGTHS)
    frames = [9, 9, 9, 17, 17, 25, 1, 1]
    for number, wanted in enumerate(frames):
        item = clips[number]
        assert shades(item["video"]) == [20 + 2 * number + frame for frame in range(wanted)]
        assert (item["text"], item["caption"]) == (f"scene {number}", f"caption {number}")
        assert (item["key"], item["fps"]) == (f"{number:024x}", 16.0)
        assert item["video"].shape == (wanted, *((32, 32) if number == 7 else (HEIGHT, WIDTH)), 3)
    assert clips.shapes.tolist() == [
        [wanted, *((32, 32) if number == 7 else (WIDTH, HEIGHT))] for number, wanted in enumerate(frames)
    ]


@pytest.mark.parametrize(("max_frames", "frames"), [(1, [1] * 8), (9, [9, 9, 9, 9, 9, 9, 1, 1]), (17, [9] * 3)])
def test_no_clip_is_longer_than_wanted(out: Storage, max_frames: int, frames: list[int]) -> None:
    clips = ClipDataset(out.uri, max_frames=max_frames)
    assert [len(clips[number]["video"]) for number in range(len(frames))] == frames


@pytest.mark.parametrize("max_frames", [0, 2, 8, 16, 80, -7])
def test_a_length_that_is_not_8k_plus_1_is_refused(out: Storage, max_frames: int) -> None:
    with pytest.raises(ValueError, match=f"max_frames {max_frames} is not of the form"):
        ClipDataset(out.uri, max_frames=max_frames)


def test_videos_take_the_training_size_and_images_keep_theirs(out: Storage) -> None:
    clips = ClipDataset(out.uri, size=(40, 24))
    assert clips[0]["video"].shape == (9, 24, 40, 3)
    assert clips[6]["video"].shape == (1, 24, 40, 3)  # a short video, not an image
    assert clips[7]["video"].shape == (1, 32, 32, 3)


def test_numbers_out_of_range_end_a_loop_and_negative_ones_count_from_the_end(out: Storage) -> None:
    clips = ClipDataset(out.uri, max_frames=1)
    assert [item["key"] for item in clips] == [f"{number:024x}" for number in range(8)]
    assert clips[-1]["key"] == f"{7:024x}"
    for number in (8, -9):
        with pytest.raises(IndexError):
            clips[number]


@pytest.mark.parametrize("workers", [0, 2])
def test_three_lines_are_enough(out: Storage, workers: int) -> None:
    clips = ClipDataset(out.uri, max_frames=9)
    loader = DataLoader(clips, batch_size=None, num_workers=workers)
    assert [batch["video"].shape[0] for batch in loader] == [9, 9, 9, 9, 9, 9, 1, 1]


def test_clips_of_one_shape_collate(tmp_path: Path) -> None:
    out = clip_dataset(tmp_path, [9, 12, 20])
    batch: dict[str, Any] = next(iter(DataLoader(ClipDataset(out.uri, max_frames=9), batch_size=3)))
    assert tuple(batch["video"].shape) == (3, 9, HEIGHT, WIDTH, 3)
    assert batch["text"] == ["scene 0", "scene 1", "scene 2"]


def test_a_video_that_is_not_what_its_record_says_is_told_with_shard_and_sample(tmp_path: Path) -> None:
    whole = clip(3, 9)
    liar = sample_of(replace(whole.record, frames=25), whole.media, "scene")
    out = seal_dataset(tmp_path, {ShardName("train", 5): [liar]})
    with pytest.raises(DamagedShard, match=f"train/nsp-000005: sample '{3:024x}': .*9 frames, not 25"):
        ClipDataset(out.uri)[0]


@pytest.mark.parametrize("size", [(0, 480), (832, -1), (832, 2**20)])
def test_a_size_that_no_picture_has_is_refused(out: Storage, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is not a width and a height"):
        ClipDataset(out.uri, size=size)


def test_a_decoder_that_there_is_none_of_is_refused_with_those_there_are(out: Storage) -> None:
    with pytest.raises(ValueError, match="'pyAV' is not one of pyav, decord"):
        ClipDataset(out.uri, backend="pyAV")  # type: ignore[arg-type]


def test_samples_of_another_kind_are_no_clips(tmp_path: Path) -> None:
    seal_latents(tmp_path, ["a" * 24])
    with pytest.raises(DatasetNotFound, match="holds samples of json, npy, not clips"):
        ClipDataset(str(tmp_path))


def test_a_dataset_that_was_made_anew_under_a_reader_is_told_as_that(tmp_path: Path) -> None:
    out = clip_dataset(tmp_path, LENGTHS)
    clips = ClipDataset(out.uri)
    manifest = Manifest.read(out)
    replace(manifest, shards=manifest.shards[1:]).publish(out)
    out.delete(manifest.shards[0].path)
    assert clips[4]["key"] == f"{4:024x}"
    with pytest.raises(DatasetChanged, match=r"train/nsp-000000 was sealed again .*open it again"):
        clips[0]
