"""The exponential moving average of the weights, which often works better than the weights of any single step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from nextscene.training.optimizer.sharding import local_part


class EMA:
    """The moving average of named parameters, starting from their present values.

    Update number t sets shadow = d * shadow + (1 - d) * parameter. With `warm_up`, d = min(decay, (1 + t) / (10 + t)),
    so that the average follows the last tenth of the updates while they are few, and the starting values soon count
    for nothing. Without it, d = `decay`: at 0.9999 the starting values are still 68 % of the average after 3,789
    updates.

    `shadows` are float32, and sharded like their parameters. `updates` is the number of updates so far.
    """

    def __init__(self, named: Mapping[str, Tensor], decay: float, warm_up: bool = False) -> None:
        """Raise ValueError unless `decay` is between 0 and 1, inclusive."""
        if not 0 <= decay <= 1:
            raise ValueError(f"a decay of {decay}: within 0 and 1")
        self._decay = decay
        self.warm_up, self.updates = warm_up, 0
        self._parameters = dict(named)
        self.shadows = {name: value.detach().to(torch.float32, copy=True) for name, value in named.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages with the present values of the parameters."""
        present = [value.float() for value in self._values()]
        torch._foreach_lerp_(self._averaged(), present, 1 - self._decay_at(self.updates))
        self.updates += 1

    @property
    def start_share(self) -> float:
        """The weight that the starting values still have in the average, from 1 at the start to 0."""
        if not self.warm_up:
            return self._decay**self.updates
        return math.prod(map(self._decay_at, range(self.updates)))

    def _decay_at(self, update: int) -> float:
        return min(self._decay, (1 + update) / (10 + update)) if self.warm_up else self._decay

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the parameters their averaged values within the context, then their own again, bit for bit.

        A module of FSDP2 must be resharded when the context begins and ends: call `reshard()` after a forward pass.
        """
        with torch.no_grad():
            own = [value.clone() for value in self._values()]
            torch._foreach_copy_(self._values(), self._averaged())
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._values(), own)

    def _values(self) -> list[Tensor]:
        return [local_part(value) for value in self._parameters.values()]

    def _averaged(self) -> list[Tensor]:
        return [local_part(shadow) for shadow in self.shadows.values()]
