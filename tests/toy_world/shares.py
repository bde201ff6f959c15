"""Shares of right attributes in the items of an evaluation, and their 95 % intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nextscene.samples.shapes.world import ATTRIBUTES, COLORS, MOTIONS, PLACES, SHAPES, what_follows

ALL = "all"
CHANCE = {
    "color": 1 / len(COLORS),
    "shape": 1 / len(SHAPES),
    "place": 1 / len(PLACES),
    "motion": 1 / len(MOTIONS),
    ALL: 1 / (len(COLORS) * len(SHAPES) * len(PLACES) * len(MOTIONS)),
}
_RESAMPLES = 10_000


class Video(NamedTuple):
    """A judged video: the run that made it, its scene, and whether each attribute is right."""

    seed: int
    scene: str
    right: dict[str, bool]


def read_items(path: Path, seed: int) -> list[Video]:
    """Return the videos of `items.jsonl` of an evaluation by the judge `shapes`."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        seen = dict(pair.split(" ", 1) for pair in item["caption"].split(", "))
        follows = what_follows(item["scene"])
        right = {name: seen[name] == getattr(follows, name) for name in ATTRIBUTES}
        found.append(Video(seed, item["scene"], right | {ALL: all(right.values())}))
    return found


def share(videos: Sequence[Video], name: str) -> tuple[float, float, float]:
    """Return the share of videos in which an attribute is right, with an interval by resampling scenes."""
    groups = _by_scene(videos, name)
    means = _resampled(groups)
    return float(np.mean([one for group in groups.values() for one in group])), *_bounds(means)


def gain(before: Sequence[Video], after: Sequence[Video], name: str) -> tuple[float, float, float]:
    """Return how much the share rose, with an interval by resampling pairs of the same seed and scene."""
    one, other = _by_scene(before, name), _by_scene(after, name)
    assert one.keys() == other.keys()
    changes = {key: [float(np.mean(other[key]) - np.mean(one[key]))] for key in one}
    return float(np.mean([change for (change,) in changes.values()])), *_bounds(_resampled(changes))


def _by_scene(videos: Sequence[Video], name: str) -> dict[tuple[int, str], list[float]]:
    groups: dict[tuple[int, str], list[float]] = {}
    for video in videos:
        groups.setdefault((video.seed, video.scene), []).append(float(video.right[name]))
    return groups


def _resampled(groups: dict[tuple[int, str], list[float]]) -> np.ndarray:
    sums = np.array([sum(group) for group in groups.values()])
    counts = np.array([len(group) for group in groups.values()])
    drawn = np.random.default_rng(0).integers(len(sums), size=(_RESAMPLES, len(sums)))
    return np.asarray(sums[drawn].sum(1) / counts[drawn].sum(1))


def _bounds(means: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
