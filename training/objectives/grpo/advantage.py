"""Group-relative advantages, and the choice of candidates and timesteps to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nextscene.training.rewards.base import known_rewards

_EPS = 1e-8


def standard_deviation(rewards: Sequence[float]) -> float:
    """Return the unbiased standard deviation, or 0 for fewer than two rewards."""
    return float(torch.tensor(rewards, dtype=torch.float64).std()) if len(rewards) > 1 else 0.0


def advantages(
    rewards: Sequence[float | None], normalize: Literal["group", "step", "none"], step_deviation: float
) -> list[float | None]:
    """Return each reward minus the mean of its group, divided by a deviation; None for a missing reward.

    All are 0 if the rewards of the group are equal. `step_deviation` is the deviation of all rewards of the step.
    """
    given = known_rewards(rewards)
    own = standard_deviation(given)
    if own == 0:
        return [None if reward is None else 0.0 for reward in rewards]
    mean = sum(given) / len(given)
    unit = {"group": own, "step": step_deviation, "none": 1.0}[normalize] + (_EPS if normalize != "none" else 0)
    return [None if reward is None else (reward - mean) / unit for reward in rewards]


class Selected(NamedTuple):
    """A candidate to learn from: its number in the group, its advantage, and its weight in the loss."""

    number: int
    advantage: float
    weight: float = 1.0


def select_best_and_worst(advantage: Sequence[float | None], keep: int, rng: torch.Generator) -> list[Selected]:
    """Return the `keep` / 2 candidates of the highest advantage and as many of the lowest. Ties are broken at random.

    If fewer than `keep` were judged, return all of those. The list is padded with the first candidate at a weight of 0,
    so that all ranks do the same amount of work.
    """
    lot = torch.randperm(len(advantage), generator=rng).tolist()
    judged = [Selected(number, value) for number in lot if (value := advantage[number]) is not None]
    judged.sort(key=lambda kept: kept.advantage, reverse=True)
    if len(judged) > keep:
        judged = judged[: keep // 2] + judged[-(keep // 2) :]
    return judged + [Selected(0, 0.0, weight=0.0)] * (keep - len(judged))


def select_timesteps(noisy: int, fraction: float, rng: torch.Generator) -> list[int]:
    """Return the noisy steps to learn from, at least one, drawn at random, in the order of learning."""
    count = max(1, round(fraction * noisy))
    order: Tensor = torch.randperm(noisy, generator=rng)
    return order[:count].tolist()
