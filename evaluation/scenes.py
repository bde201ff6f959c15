"""Scenes of a dataset, for models to continue."""

from __future__ import annotations

import hashlib

from nextscene.common.errors import UsageError
from nextscene.shards.format.sample import Sample, type_of_clips
from nextscene.shards.loading.reader import SplitReader


def dataset_scenes(location: str, split: str = "test", max_scenes: int | None = None) -> list[str]:
    """Return the scenes of a dataset's split without duplicates, at most `max_scenes` of them.

    They are ordered by the hash of the sample's key, so the first few are a fair sample of all sources. Raise
    UsageError if the dataset contains latents, or a clip without a scene.
    """
    reader = SplitReader(location, split)
    if type_of_clips(reader.index.members) is None:
        raise UsageError(f"{location} holds {', '.join(reader.index.members)}; name the dataset of clips")
    keys = [reader.index.key(number) for number in range(len(reader))]
    found: dict[str, None] = {}
    for number in sorted(range(len(keys)), key=lambda number: hashlib.sha256(keys[number].encode()).digest()):
        if len(found) == max_scenes:
            break
        scene = Sample.of(reader.group(number), str(reader.shard_of(number))).record.scene_description
        if not scene:
            raise UsageError(f"{location}: its clips have no scenes; name a dataset that was built with a judge")
        found[scene] = None
    return list(found)
