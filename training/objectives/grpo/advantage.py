"""What each candidate of a group was better or worse by, and which of them are learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nextscene.training.rewards.base import known_rewards

_EPS = 1e-8


def standard_deviation(rewards: Sequence[float]) -> float:
    """The unbiased standard deviation; 0 where there are fewer than two."""
    return float(torch.tensor(rewards, dtype=torch.float64).std()) if len(rewards) > 1 else 0.0


def advantages(
    rewards: Sequence[float | None], normalise: Literal["group", "step", "none"], step_deviation: float
) -> list[float | None]:
    """Each reward less the mean of its group, in units of a deviation; None where there is no reward.

    All are 0 where the group has no spread: there is nothing to be learnt from it. `step_deviation` is that of all
    rewards of the step.
    """
    given = known_rewards(rewards)
    own = standard_deviation(given)
    if own == 0:
        return [None if reward is None else 0.0 for reward in rewards]
    mean = sum(given) / len(given)
    unit = {"group": own, "step": step_deviation, "none": 1.0}[normalise] + (_EPS if normalise != "none" else 0)
    return [None if reward is None else (reward - mean) / unit for reward in rewards]


class Selected(NamedTuple):
    """One that is learnt from: its number in the group, its advantage, and what it weighs."""

    number: int
    advantage: float
    weight: float = 1.0


def select_best_and_worst(advantage: Sequence[float | None], keep: int, rng: torch.Generator) -> list[Selected]:
    """`keep` / 2 of the highest and as many of the lowest; equal ones are taken by lot.

    Where fewer than `keep` were judged, all of those. The list is filled up with the first of the group at a weight of
    0, so that all ranks have equally much to do.
    """
    lot = torch.randperm(len(advantage), generator=rng).tolist()
    judged = [Selected(number, value) for number in lot if (value := advantage[number]) is not None]
    judged.sort(key=lambda kept: kept.advantage, reverse=True)
    if len(judged) > keep:
        judged = judged[: keep // 2] + judged[-(keep // 2) :]
    return judged + [Selected(0, 0.0, weight=0.0)] * (keep - len(judged))


def select_timesteps(noisy: int, fraction: float, rng: torch.Generator) -> list[int]:
    """Which of the steps with noise are learnt from, in the order of learning: at least one, drawn anew each time."""
    count = max(1, round(fraction * noisy))
    order: Tensor = torch.randperm(noisy, generator=rng)
    return order[:count].tolist()
