"""The stage `rl` small enough for a test, and rewards to be had at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from nextscene.training.job import Job
from nextscene.training.recipe import Mix, Optimiser, Policy, Recipe, Reward
from nextscene.training.rewards.base import Candidate, Verdict
from nextscene.training.summary import Summary
from tests.training.stages import SMALL, Quiet, on_rank

RL: Recipe = replace(
    SMALL,
    name="rl",
    stage="rl",
    mix=(Mix(),),
    data=replace(SMALL.data, global_batch=2),
    optimiser=Optimiser(kind="adamw", lr=1e-3, ema=0.0),
    reward=Reward(kind="retrieval"),
    policy=Policy(candidates=6, best_of=4, batch=2, steps=4, eta=0.7, clip=0.1),
    keeping=replace(SMALL.keeping, evaluate_clips=0, checkpoint_every=0),
)


def policy(**changes: Any) -> Recipe:
    """The recipe with another policy."""
    return replace(RL, policy=replace(RL.policy, **changes))


Judge = Callable[[Candidate], float | Verdict | None]


class Toy:
    """Says of each candidate what a function makes of it; of None, that it may be asked again."""

    name = "toy"

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._verdicts: list[Verdict] = []

    def ask(self, candidates: Sequence[Candidate]) -> None:
        self._verdicts += [self._verdict(self._judge(candidate)) for candidate in candidates]

    def verdicts(self) -> list[Verdict]:
        found, self._verdicts = self._verdicts, []
        return found

    def end(self) -> None: ...

    def _verdict(self, said: float | Verdict | None) -> Verdict:
        return said if isinstance(said, Verdict) else Verdict(said, "it is a toy", again=said is None)


def brightness(candidate: Candidate) -> float:
    """Of the latents: a VAE with random weights makes grey of all of them."""
    return candidate.tokens.mean().item()


def odd_passes(candidate: Candidate) -> float:
    return float(candidate.number % 2)


def one_in_three_is_missing(candidate: Candidate) -> float | None:
    return None if candidate.number % 3 == 2 else brightness(candidate)


def all_pass(_: Candidate) -> float:
    return 1.0


def nobody_knows(_: Candidate) -> None:
    return None


def judged_by(judge: Judge) -> Iterator[None]:
    return patch("nextscene.training.stage.reward_of", lambda *_: Toy(judge))


def rl_on_rank(rank: int, world: int, job: Job, judge: Judge, stop_after: int = -1) -> tuple[Summary, Quiet]:
    """For `by_ranks`."""
    with judged_by(judge):
        return on_rank(rank, world, job, stop_after)
