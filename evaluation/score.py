"""The mean of what a judge said of videos, and how far it could be off, by drawing the scenes anew (bootstrap)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nextscene.training.rewards.base import known_rewards

Rewards = Mapping[str, Sequence[float | None]]
"""Scene → what was said of each video that was made of it; None where nothing was."""

_RESAMPLES = 10_000
_AT_ONCE = 500
_SEED = 0
_BOUNDS = (2.5, 97.5)

_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """`low` and `high` bound the middle 95 % of what other scenes of the kind would have given.

    `judged` videos of `scenes` scenes are in it; `missing` ones, of which nothing was said, are not, for or against.
    """

    mean: float
    low: float
    high: float
    scenes: int
    judged: int
    missing: int


@dataclass(frozen=True)
class ScoreDifference:
    """How much higher the first of two scores is, over the `scenes` of which both have a judged video."""

    mean: float
    low: float
    high: float
    scenes: int


def score(rewards: Rewards) -> Score | None:
    """None where nothing was judged."""
    sums, counts = _sums_and_counts(rewards.values())
    judged = int(counts.sum())
    if not judged:
        return None
    low, high = np.percentile(_drawn_anew(sums, counts), _BOUNDS)
    missing = sum(map(len, rewards.values())) - judged
    return Score(float(sums.sum() / judged), float(low), float(high), len(sums), judged, missing)


def difference(one: Rewards, other: Rewards) -> ScoreDifference | None:
    """Scene by scene, so that what is hard for both does not count. None where no scene has both."""
    both = [scene for scene in one if known_rewards(one[scene]) and known_rewards(other.get(scene, ()))]
    if not both:
        return None
    pairs = [_sums_and_counts(rewards[scene] for scene in both) for rewards in (one, other)]
    means = [float(sums.sum() / counts.sum()) for sums, counts in pairs]
    low, high = np.percentile(np.subtract(*(_drawn_anew(*pair) for pair in pairs)), _BOUNDS)
    return ScoreDifference(means[0] - means[1], float(low), float(high), len(both))


def _sums_and_counts(scenes: Iterable[Sequence[float | None]]) -> tuple[_Numbers, _Numbers]:
    """[scenes]: of those that have a judged video."""
    judged = list(filter(None, map(known_rewards, scenes)))
    return np.array([sum(rewards) for rewards in judged], float), np.array([len(rewards) for rewards in judged], float)


def _drawn_anew(sums: _Numbers, counts: _Numbers) -> _Numbers:
    """[resamples]: the mean over scenes that are drawn anew, the same ones every time. A scene's videos go together."""
    random = np.random.default_rng(_SEED)
    draws = (random.integers(len(sums), size=(_AT_ONCE, len(sums))) for _ in range(_RESAMPLES // _AT_ONCE))
    return np.concatenate([sums[drawn].sum(1) / counts[drawn].sum(1) for drawn in draws])
