"""The stage `rl` small enough for a test, and rewards to be had at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any
from unittest.mock import patch

from nextscene.training.config import MixConfig, OptimizerConfig, PolicyConfig, RewardConfig
from nextscene.training.job import TrainingJob
from nextscene.training.recipe import Recipe
from nextscene.training.rewards.base import Candidate, RewardVerdict
from nextscene.training.summary import StageSummary
from tests.training.stages import SMALL, Quiet, on_rank

RL: Recipe = replace(
    SMALL,
    name="rl",
    stage="rl",
    mix=(MixConfig(),),
    data=replace(SMALL.data, global_batch=2),
    optimizer=OptimizerConfig(kind="adamw", lr=1e-3, ema=0.0),
    reward=RewardConfig(kind="retrieval"),
    policy=PolicyConfig(group_size=6, best_of=4, batch=2, steps=4, eta=0.7, clip_range=0.1),
    logging=replace(SMALL.logging, evaluate_clips=0, checkpoint_every=0),
)


def policy(**changes: Any) -> Recipe:
    """The recipe with another policy."""
    return replace(RL, policy=replace(RL.policy, **changes))


Judge = Callable[[Candidate], float | RewardVerdict | None]


class Toy:
    """Says of each candidate what a function makes of it; of None, that it may be asked again."""

    name = "toy"

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._verdicts: list[RewardVerdict] = []

    def ask(self, candidates: Sequence[Candidate]) -> None:
        self._verdicts += [self._verdict(self._judge(candidate)) for candidate in candidates]

    def verdicts(self) -> list[RewardVerdict]:
        found, self._verdicts = self._verdicts, []
        return found

    def close(self) -> None: ...

    def _verdict(self, said: float | RewardVerdict | None) -> RewardVerdict:
        return said if isinstance(said, RewardVerdict) else RewardVerdict(said, "it is a toy", retryable=said is None)


def brightness(candidate: Candidate) -> float:
    """Of the latents: a VAE with random weights makes gray of all of them."""
    return candidate.tokens.mean().item()


def odd_passes(candidate: Candidate) -> float:
    return float(candidate.number % 2)


def odd_clips_have_spread(candidate: Candidate) -> RewardVerdict:
    """A cent a verdict. The clips come as 0, 3, 10, 4, 11, 5, 7, 6, 9, 8."""
    passes = odd_passes(candidate) if int(candidate.clip_id, 16) % 2 else 1.0
    return RewardVerdict(passes, "it is a toy", usd=Decimal("0.01"))


def one_in_three_is_missing(candidate: Candidate) -> float | None:
    return None if candidate.number % 3 == 2 else brightness(candidate)


def all_pass(_: Candidate) -> float:
    return 1.0


def nobody_knows(_: Candidate) -> None:
    return None


def judged_by(judge: Judge) -> Iterator[None]:
    return patch("nextscene.training.build_stage.build_reward", lambda *_: Toy(judge))


def rl_on_rank(
    rank: int, world: int, job: TrainingJob, judge: Judge, stop_after: int = -1
) -> tuple[StageSummary, Quiet]:
    """For `by_ranks`."""
    with judged_by(judge):
        return on_rank(rank, world, job, stop_after)
