"""Scenes of a dataset: each once, in an order that does not follow its sources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.errors import UsageError
from nextscene.evaluation.scenes import dataset_scenes
from nextscene.shards.format.layout import ShardName
from tests.shards.samples import sample, sample_of, seal_dataset


def dataset(folder: Path, *scenes: str) -> str:
    clips = [
        sample_of(replace(sample(number).record, scene_description=scene), b"no video", "")
        for number, scene in enumerate(scenes)
    ]
    seal_dataset(folder, {ShardName("test", 0): clips})
    return str(folder)


def test_scenes_come_once_and_the_first_few_are_the_same_whatever_the_limit(tmp_path: Path) -> None:
    names = [f"What was before {number}." for number in range(6)]
    data = dataset(tmp_path / "data", *names, names[0])
    found = dataset_scenes(data)
    assert sorted(found) == names
    assert found != names
    assert dataset_scenes(data, max_scenes=2) == found[:2]


def test_a_dataset_without_scenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its clips have no scenes"):
        dataset_scenes(dataset(tmp_path / "data", ""))
