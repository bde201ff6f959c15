"""Counting as it happens: against a second count, of what each clip has come to in the end."""

from __future__ import annotations

import random
from typing import get_args

import pytest

from nextscene.curation.plan import PlannedClip, Unit
from nextscene.curation.progress import ClipStage, StageCounts, Stages
from nextscene.shards.format.layout import ShardName, UnitName

STAGES: tuple[ClipStage, ...] = get_args(ClipStage)


def unit(index: int, clips: int, later: int = 0) -> Unit:
    made = tuple(
        PlannedClip(i, f"{index:08d}{i:08d}", "train", index, 0, "", "a.mp4", "", "a.mp4", 0, -1, "a", "", 0, 0, 0, 0)
        for i in range(clips)
    )
    left = frozenset(clip.clip_id for clip in made[clips - later :])
    return Unit(UnitName("train", index), ShardName("train", 0), made, deferred=left)


@pytest.mark.parametrize("seed", range(20))
def test_however_often_and_late_it_is_told_each_clip_counts_once(seed: int) -> None:
    chance, counts = random.Random(seed), StageCounts()
    units = [unit(index, chance.randint(1, 9), chance.randint(0, 1)) for index in range(10)]
    seen = Stages()
    for one in units:
        counts.begin(one)
        for stage in STAGES:
            for _ in range(chance.randint(0, 5)):
                counts.take({(stage, one.name): chance.randint(0, len(one.clips))})
            counts.complete(stage, one)
            if chance.random() < 0.3:  # lost with its node, done anew
                counts.take({(stage, one.name): 1})
                counts.complete(stage, one)
            now = counts.stages
            assert now.screened >= seen.screened and now.asked >= seen.asked and now.cut >= seen.cut
            seen = now
        counts.end(one.name)
        counts.take({("cut", one.name): 1})  # too late
    begun = sum(len(one.clips) - len(one.deferred) for one in units)
    assert counts.stages == Stages(begun, begun, begun, 0, begun)
