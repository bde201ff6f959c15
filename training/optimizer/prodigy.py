"""Prodigy: Adam that estimates its own step size d, for parameters that are whole or sharded over processes.

Mishchenko and Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", arXiv 2306.06101. If the authors'
own package, prodigyopt, differs from the paper, this follows the package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from nextscene.training.optimizer.sharding import local_part, shard_group, sum_over_group

_PORTION = 2**26  # elements; intermediate results take two tensors of this size, however large the model is


class Prodigy(torch.optim.Optimizer):
    """Prodigy for plain tensors, or for DTensors of FSDP2. d is the same in all processes.

    `state[parameter]` has p0, s, exp_avg and exp_avg_sq, all shaped and sharded like the parameter. `shared` has d,
    d_max, numerator and step as scalars. All state exists from the beginning; together with the weights, the gradients
    and the options it decides the next step. A step never waits for the device.
    """

    shared: dict[str, Tensor]

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        beta3: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth_rate: float = math.inf,
    ) -> None:
        """Take the options of prodigyopt; `weight_decay` is decoupled. Raise ValueError for an option out of range.

        A group may have its own `weight_decay`, or an `lr` of 0, which freezes it. Distance is measured from the values
        that the parameters have now, so load weights before.
        """
        if lr < 0 or eps <= 0 or d0 <= 0 or not 0 < betas[0] < 1 or not all(0 <= b < 1 for b in (betas[1], beta3 or 0)):
            raise ValueError(f"lr {lr}, eps {eps}, d0 {d0}, betas {betas} and {beta3}: out of range")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._betas = (*betas, math.sqrt(betas[1]) if beta3 is None else beta3)
        self._eps = eps
        self._use_bias_correction = use_bias_correction
        self._safeguard_warmup = safeguard_warmup
        self._d0, self._d_coef, self._growth_rate = d0, d_coef, growth_rate
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self._group = shard_group(parameters)
        for parameter in parameters:
            value = parameter.detach()
            zeros = {name: torch.zeros_like(value) for name in ("s", "exp_avg", "exp_avg_sq")}
            self.state[parameter] = {"p0": value.clone(), **zeros}
        # In double precision, because d is compared with d0, and the estimate may grow by tiny amounts in each step.
        begin = {"d": d0, "d_max": d0, "numerator": 0.0, "step": 0.0}
        device = local_part(parameters[0].detach()).device
        self.shared = {name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in begin.items()}

    @property
    def d(self) -> Tensor:
        """The estimated distance to the solution, float64 []. It is the step size before the factor `lr`."""
        return self.shared["d"]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "shared": self.shared}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for name, value in self.shared.items():
            value.copy_(state_dict["shared"][name])

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: the gradients are those of one point
        """Update the parameters that have a gradient. Nothing changes while all gradients so far are 0, or `lr` is 0.

        All processes must call this. Raise ValueError if groups have different `lr` other than 0.
        """
        lr = self._lr()
        if lr == 0:
            return
        rate = self.d * lr * self._bias_correction()
        portions = list(self._portions())
        sums = torch.zeros(2, dtype=torch.float64, device=self.d.device)
        for portion in portions:
            sums += self._take_in(portion, rate)
        along, length = sum_over_group(sums, self._group)
        moving = length != 0
        self._estimate(along * rate * self.d / self._d0, length, moving)
        for portion in portions:
            self._move(portion, torch.where(moving, rate, 0.0))

    def _lr(self) -> float:
        lr: float = max(group["lr"] for group in self.param_groups)
        if any(group["lr"] not in (lr, 0) for group in self.param_groups):
            raise ValueError("the lr of groups may differ only in that some are 0: they share one estimate of d")
        return lr

    def _bias_correction(self) -> Tensor | float:
        if not self._use_bias_correction:
            return 1.0
        beta1, beta2, _ = self._betas
        step = self.shared["step"] + 1
        return (1 - beta2**step).sqrt() / (1 - beta1**step)

    def _portions(self) -> Iterator[_Portion]:
        for group in self.param_groups:
            if group["lr"] == 0:
                continue
            live = [p for p in group["params"] if p.grad is not None and local_part(p).numel()]
            for some in _in_portions(live):
                state = {name: [local_part(self.state[p][name]) for p in some] for name in self.state[some[0]]}
                values = [local_part(p) for p in some]
                gradients = [local_part(p.grad) for p in some if p.grad is not None]
                yield _Portion(values, gradients, **state, weight_decay=group["weight_decay"])

    def _take_in(self, portion: _Portion, rate: Tensor) -> Tensor:
        """Update the averages with the gradients.

        Return [2]: the inner product of the gradients with p0 - values, and the 1-norm of s.
        """
        beta1, beta2, beta3 = self._betas
        along = _way_back(portion.gradients, portion.p0, portion.values)
        scaled = torch._foreach_mul(portion.gradients, self.d.to(portion.dtype))
        torch._foreach_lerp_(portion.exp_avg, scaled, 1 - beta1)
        torch._foreach_mul_(portion.exp_avg_sq, beta2)
        torch._foreach_addcmul_(portion.exp_avg_sq, scaled, scaled, 1 - beta2)
        weight = (self.d if self._safeguard_warmup else rate) / self._d0
        torch._foreach_mul_(scaled, weight.to(portion.dtype))
        torch._foreach_mul_(portion.s, beta3)
        torch._foreach_add_(portion.s, scaled)
        lengths = torch._foreach_norm(portion.s, 1)
        return torch.stack([torch.stack(terms).double().sum() for terms in (along, lengths)])

    def _estimate(self, added: Tensor, length: Tensor, moving: Tensor) -> None:
        """Update d and the other shared state, unless `moving` is False."""
        d, d_max, numerator, step = (self.shared[name] for name in ("d", "d_max", "numerator", "step"))
        numerator = numerator * self._betas[2] + added
        estimate = numerator / length * self._d_coef
        d = torch.where(d == self._d0, torch.fmax(d, estimate), d)
        d_max = torch.fmax(d_max, estimate)
        d = torch.minimum(d_max, d * self._growth_rate)
        for name, value in {"d": d, "d_max": d_max, "numerator": numerator, "step": step + 1}.items():
            self.shared[name].copy_(torch.where(moving, value, self.shared[name]))

    def _move(self, portion: _Portion, rate: Tensor) -> None:
        """Take a step of Adam at this rate, with the eps of the new d."""
        denominators = torch._foreach_sqrt(portion.exp_avg_sq)
        # Without alpha, torch would read the addend back from the device as a number, and wait for it.
        torch._foreach_add_(denominators, (self.d * self._eps).to(portion.dtype), alpha=1)
        changes = torch._foreach_div(portion.exp_avg, denominators)
        if portion.weight_decay:
            torch._foreach_add_(changes, portion.values, alpha=portion.weight_decay)
        torch._foreach_mul_(changes, rate.to(portion.dtype))
        torch._foreach_sub_(portion.values, changes)


@dataclass(frozen=True)
class _Portion:
    """The local tensors, all non-empty, of those parameters of a group that are updated together."""

    values: list[Tensor]
    gradients: list[Tensor]
    p0: list[Tensor]
    s: list[Tensor]
    exp_avg: list[Tensor]
    exp_avg_sq: list[Tensor]
    weight_decay: float

    @property
    def dtype(self) -> torch.dtype:
        return self.values[0].dtype


def _in_portions(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Split the parameters into lists of at most _PORTION local elements. A larger parameter is a list of its own."""
    portion: list[Tensor] = []
    size = 0
    for parameter in parameters:
        length = local_part(parameter).numel()
        if portion and size + length > _PORTION:
            yield portion
            portion, size = [], 0
        portion.append(parameter)
        size += length
    if portion:
        yield portion


def _way_back(gradients: list[Tensor], p0: list[Tensor], values: list[Tensor]) -> list[Tensor]:
    """Return the inner product of each gradient with p0 - values."""
    ways = torch._foreach_sub(p0, values)
    return [torch.dot(one.flatten(), way.flatten()) for one, way in zip(gradients, ways, strict=True)]
