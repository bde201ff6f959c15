"""The mean of a judge's verdicts on videos, with a bootstrap interval over the scenes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nextscene.training.rewards.base import known_rewards

Rewards = Mapping[str, Sequence[float | None]]
"""Scene → the verdict on each of its videos: 1 for Pass, 0 for Fail, None if it is missing."""

_RESAMPLES = 10_000
_AT_ONCE = 500
_SEED = 0
_PERCENTILES = (2.5, 97.5)

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A mean verdict, from 0 to 1. `low` and `high` bound its 95 % bootstrap interval over the scenes.

    `judged` is the number of videos with a verdict, and `scenes` the number of scenes that have such a video.
    `missing` videos have no verdict, and do not count.
    """

    mean: float
    low: float
    high: float
    scenes: int
    judged: int
    missing: int


@dataclass(frozen=True)
class ScoreDifference:
    """The first of two scores minus the second, with a 95 % interval, on the `scenes` for which both have a verdict."""

    mean: float
    low: float
    high: float
    scenes: int


def score(rewards: Rewards) -> Score | None:
    """Return the mean of all known rewards, with its interval; None if no video was judged."""
    sums, counts = _sums_and_counts(rewards.values())
    judged = int(counts.sum())
    if not judged:
        return None
    low, high = np.percentile(_drawn_anew(sums, counts), _PERCENTILES)
    missing = sum(map(len, rewards.values())) - judged
    return Score(float(sums.sum() / judged), float(low), float(high), len(sums), judged, missing)


def difference(one: Rewards, other: Rewards) -> ScoreDifference | None:
    """Return the score of `one` minus that of `other`, on the scenes for which both have a verdict; None without any.

    Both are resampled with the same scenes (paired bootstrap), so that scenes that are hard for both cancel out.
    """
    both = [scene for scene in one if known_rewards(one[scene]) and known_rewards(other.get(scene, ()))]
    if not both:
        return None
    pairs = [_sums_and_counts(rewards[scene] for scene in both) for rewards in (one, other)]
    means = [float(sums.sum() / counts.sum()) for sums, counts in pairs]
    low, high = np.percentile(np.subtract(*(_drawn_anew(*pair) for pair in pairs)), _PERCENTILES)
    return ScoreDifference(means[0] - means[1], float(low), float(high), len(both))


def _sums_and_counts(scenes: Iterable[Sequence[float | None]]) -> tuple[_Numbers, _Numbers]:
    """Return the sums and the counts of known rewards, each [scenes], for the scenes that have a judged video."""
    judged = list(filter(None, map(known_rewards, scenes)))
    return np.array([sum(rewards) for rewards in judged], float), np.array([len(rewards) for rewards in judged], float)


def _drawn_anew(sums: _Numbers, counts: _Numbers) -> _Numbers:
    """Return the mean reward of each bootstrap resample, [resamples].

    Scenes are drawn with replacement, each with all its videos. The seed is fixed: every call draws the same scenes.
    """
    random = np.random.default_rng(_SEED)
    draws = (random.integers(len(sums), size=(_AT_ONCE, len(sums))) for _ in range(_RESAMPLES // _AT_ONCE))
    return np.concatenate([sums[drawn].sum(1) / counts[drawn].sum(1) for drawn in draws])
