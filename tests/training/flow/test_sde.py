"""Steps with noise: what they reach is distributed as it should be, and their probability is what it is said to be."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.config import PolicyConfig
from nextscene.training.flow.sampler import integrate
from nextscene.training.flow.schedule import sampling_sigmas
from nextscene.training.flow.sde import transition
from nextscene.training.objectives.grpo.rollout import candidate_rng, rollout
from tests.training.pretrained import scheduler

pytestmark = pytest.mark.slow

ODE = PolicyConfig(eta=0.0)
NOISY = [
    PolicyConfig(dynamics="dance", eta=0.3),
    PolicyConfig(dynamics="flow", eta=0.7),
    PolicyConfig(dynamics="cps", eta=0.7),
]
ALL = [ODE, *NOISY]
MEAN, SPREAD = 0.4, 0.5
"""Of the data, which are normal in each coordinate: so the true velocity is linear, and all that follows is normal."""


def names(policy: PolicyConfig) -> str:
    return policy.dynamics if policy.eta else "ode"


def true_velocity(tokens: Tensor, sigma: Tensor) -> Tensor:
    """E[e - x0 | x]"""
    at = sigma.view(-1, 1, 1)
    variance = (1 - at) ** 2 * SPREAD**2 + at**2
    away = tokens - (1 - at) * MEAN
    return at / variance * away - (MEAN + (1 - at) * SPREAD**2 / variance * away)


def moments(policy: PolicyConfig, sigmas: list[float]) -> tuple[float, float]:
    """Mean and variance at the end, by the recursion of a linear step: x' = a x + b + s ε, derived by the score."""
    mean, variance = 0.0, 1.0
    for now, then in pairwise(sigmas):

        def leads(x: float, now: float = now, then: float = then) -> tuple[float, float]:
            velocity = true_velocity(torch.full((1, 1, 1), x, dtype=torch.float64), torch.tensor([now])).item()
            clean, noise = x - now * velocity, x + (1 - now) * velocity
            if policy.dynamics == "cps":
                turn = policy.eta * math.pi / 2 if then else 0.0
                return (1 - then) * clean + then * math.cos(turn) * noise, then * math.sin(turn)
            s = policy.eta
            if policy.dynamics == "flow":
                s *= math.sqrt(now / (1 - now)) if now < 1 else math.sqrt(now / (1 - then))
            if not then:
                s = 0.0
            score = -noise / now
            return x + (velocity - s**2 / 2 * score) * (then - now), s * math.sqrt(now - then)

        offset, deviation = leads(0.0)
        slope = leads(1.0)[0] - offset
        mean, variance = slope * mean + offset, slope**2 * variance + deviation**2
    return mean, variance


def sampled(policy: PolicyConfig, sigmas: list[float], count: int = 40_000) -> Tensor:
    rng = torch.Generator().manual_seed(7)
    noise = torch.randn(1, count, 1, generator=rng)
    if not policy.eta:
        return integrate(true_velocity, noise, torch.tensor(sigmas)).flatten()
    return rollout(policy, true_velocity, noise, sigmas, [rng]).final.flatten()


@pytest.mark.parametrize("policy", ALL, ids=names)
def test_the_ends_are_distributed_as_the_linear_recursion_says(policy: PolicyConfig) -> None:
    sigmas = sampling_sigmas(scheduler(), 20, 3510).tolist()
    mean, variance = moments(policy, sigmas)
    ends = sampled(policy, sigmas)
    error = 4 * math.sqrt(variance / len(ends))
    assert ends.mean().item() == pytest.approx(mean, abs=error)
    assert ends.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / len(ends)))


@pytest.mark.parametrize(
    "policy", [ODE, PolicyConfig(dynamics="dance", eta=0.7), PolicyConfig(dynamics="flow", eta=0.5)], ids=names
)
def test_with_ever_smaller_steps_the_ends_are_distributed_as_the_data(policy: PolicyConfig) -> None:
    """What makes it another way to sample the same: any strength of the noise keeps the distribution at each σ."""
    mean, variance = moments(policy, np.linspace(1, 0, 20_001).tolist())
    assert mean == pytest.approx(MEAN, abs=2e-3)
    assert math.sqrt(variance) == pytest.approx(SPREAD, rel=5e-3)


def test_the_noise_that_is_advised_hardly_widens_the_ends_and_much_does() -> None:
    """Why the default is what it is: LTX's schedule ends with one large step, which takes no noise away again."""
    sigmas = sampling_sigmas(scheduler(), 20, 3510).tolist()
    plain, advised, much = (moments(PolicyConfig(eta=eta), sigmas)[1] for eta in (0.0, 0.3, 1.5))
    assert advised < 1.2 * plain < much


@pytest.mark.parametrize("policy", NOISY, ids=names)
@pytest.mark.parametrize(("now", "then"), [(1.0, 0.95), (0.6, 0.5), (0.2, 0.1)])
def test_the_log_probability_is_that_of_a_normal_distribution(policy: PolicyConfig, now: float, then: float) -> None:
    tokens, velocity, reached, other = torch.randn(4, 2, 5, 3).unbind()
    step = transition(policy, tokens, velocity, now, then)
    normal = Normal(step.mean, step.deviation)
    assert torch.allclose(step.log_prob(reached), normal.log_prob(reached).mean((1, 2)), rtol=1e-5)
    divergence = kl_divergence(normal, Normal(other, step.deviation)).mean((1, 2))
    assert torch.allclose(step.kl_divergence(other), divergence, rtol=1e-5)


@pytest.mark.parametrize("policy", ALL, ids=names)
def test_the_last_step_is_the_flow_s_own(policy: PolicyConfig) -> None:
    tokens, velocity = torch.randn(2, 1, 4, 3)
    step = transition(policy, tokens, velocity, 0.1, 0.0)
    assert step.deviation == 0
    assert torch.allclose(step.mean, tokens - 0.1 * velocity)


def test_flow_grpo_takes_the_first_noise_strength_from_the_next_level() -> None:
    step = transition(PolicyConfig(dynamics="flow", eta=0.7), torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), 1.0, 0.9)
    assert step.deviation == pytest.approx(0.7 * math.sqrt(1 / 0.1) * math.sqrt(0.1))


@pytest.mark.parametrize("policy", NOISY, ids=names)
def test_a_walk_is_kept_as_it_was_taken(policy: PolicyConfig) -> None:
    """Every step's beginning leads, by the same velocity, to the next one's with the probability that was kept."""
    sigmas = sampling_sigmas(scheduler(), 6, 300).tolist()
    rollouts = rollout(
        policy, true_velocity, torch.randn(1, 4, 3), sigmas, [torch.Generator().manual_seed(n) for n in (1, 2)]
    )
    assert rollouts.trajectory.shape == (6, 2, 4, 3)
    assert torch.equal(rollouts.trajectory[0, 0], rollouts.trajectory[0, 1])  # one noise for all
    assert not torch.equal(rollouts.trajectory[1, 0], rollouts.trajectory[1, 1])  # and noise of its own for each
    for place, (now, then) in enumerate(pairwise(sigmas[:-1])):
        began, reached = rollouts.trajectory[place], rollouts.trajectory[place + 1]
        step = transition(policy, began, true_velocity(began, torch.full((2,), now)), now, then)
        assert torch.equal(step.log_prob(reached), rollouts.log_probs[place])


@pytest.mark.parametrize("policy", NOISY, ids=names)
def test_a_walk_is_the_same_beside_others(policy: PolicyConfig) -> None:
    sigmas, noise = sampling_sigmas(scheduler(), 6, 300).tolist(), torch.randn(1, 4, 3)

    def walked(*numbers: int) -> Tensor:
        rngs = [candidate_rng(5, SampleRef(1, 0), number) for number in numbers]
        return rollout(policy, true_velocity, noise, sigmas, rngs).trajectory

    assert torch.equal(walked(0, 1, 2)[:, 1:], torch.cat([walked(1), walked(2)], dim=1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_candidate_s_noise_is_its_own_too() -> None:
    def drawn(number: int) -> Tensor:
        rng = candidate_rng(5, SampleRef(1, 0), number, torch.device("cuda"))
        return torch.randn(3510, 128, generator=rng, device=rng.device)

    first, second = drawn(0), drawn(1)
    assert first.is_cuda and torch.equal(first, drawn(0)) and not torch.equal(first, second)
