"""Groups with their verdicts: what a step came to, over all ranks, and what is to be learned from each group.

Tested in tests/training/objectives/grpo/test_grpo.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import torch

from nextscene.training.distributed.process_group import World
from nextscene.training.objectives.grpo.advantage import Selected, standard_deviation
from nextscene.training.objectives.grpo.group import CandidateGroup
from nextscene.training.rewards.base import RewardVerdict, known_rewards


@dataclass(frozen=True)
class JudgedGroup:
    """A group with its verdicts and advantages, and the candidates and timesteps to learn from.

    All candidates that are kept of a group are learned from at the same timesteps.
    """

    group: CandidateGroup
    verdicts: list[RewardVerdict]
    advantages: list[float | None]
    kept: list[Selected]
    steps: list[int]


def rewards_of(verdicts: Sequence[RewardVerdict]) -> list[float]:
    """Return the rewards that are known."""
    return known_rewards(verdict.reward for verdict in verdicts)


def has_spread(verdicts: Sequence[RewardVerdict]) -> bool:
    """Return True if the rewards of a group are not all equal. Otherwise it teaches nothing."""
    return standard_deviation(rewards_of(verdicts)) > 0


@dataclass(frozen=True)
class RewardTotals:
    """Sums over the groups of a step so far, on all ranks.

    `rewards` is the number of known rewards, `total` their sum and `squares` that of their squares; `candidates` counts
    those without a reward too, and `retryable` those that may have one when they are asked again. `deviations` is the
    sum of the groups' deviations, `flat` the number of groups without spread, and `usd` the cost.
    """

    rewards: float
    total: float
    squares: float
    scenes: float
    deviations: float
    flat: float
    candidates: float
    usd: float
    retryable: float

    @staticmethod
    def of(groups: Sequence[Sequence[RewardVerdict]], world: World) -> RewardTotals:
        """Return the totals over the groups of all ranks, given the verdicts of this rank's groups."""
        verdicts = [verdict for own in groups for verdict in own]
        given = rewards_of(verdicts)
        sums = [
            len(given),
            sum(given),
            sum(reward * reward for reward in given),
            len(groups),
            sum(standard_deviation(rewards_of(own)) for own in groups),
            sum(not has_spread(own) for own in groups),
            len(verdicts),
            float(sum((verdict.usd for verdict in verdicts), Decimal(0))),
            sum(verdict.retryable for verdict in verdicts),
        ]
        return RewardTotals(*world.all_reduce_sum(torch.tensor(sums, dtype=torch.float64)).tolist())

    @property
    def mean(self) -> float:
        return self.total / max(1, self.rewards)

    @property
    def deviation(self) -> float:
        """The unbiased standard deviation of all rewards."""
        if self.rewards < 2:
            return 0.0
        return math.sqrt(max(0.0, self.squares - self.rewards * self.mean**2) / (self.rewards - 1))

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of a step. There is no mean reward if no reward is known."""
        return {
            **({"reward_mean": self.mean} if self.rewards else {}),
            "reward_deviation": self.deviations / self.scenes,
            "groups_without_spread": self.flat / self.scenes,
            "missing_judgements": 1 - self.rewards / self.candidates,
            "usd": self.usd,
        }
