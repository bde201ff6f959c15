"""The exponential moving average of the weights, which often works better than the weights of any single step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from nextscene.training.optimizer.sharding import local_part


class EMA:
    """The moving average of named parameters, starting from their present values.

    shadow = decay * shadow + (1 - decay) * parameter. `shadows` are float32, and sharded like their parameters.
    """

    def __init__(self, named: Mapping[str, Tensor], decay: float) -> None:
        """Raise ValueError unless `decay` is between 0 and 1, inclusive."""
        if not 0 <= decay <= 1:
            raise ValueError(f"a decay of {decay}: within 0 and 1")
        self._decay = decay
        self._parameters = dict(named)
        self.shadows = {name: value.detach().to(torch.float32, copy=True) for name, value in named.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the averages with the present values of the parameters."""
        present = [value.float() for value in self._values()]
        torch._foreach_lerp_(self._averaged(), present, 1 - self._decay)

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
