"""The bridge between Qwen and LTX: learnable queries, which Qwen reads last, and the connector (paper, section 13).

Tested in tests/training/model/test_unified.py.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class Queries(nn.Module):
    """Vectors [queries, width] that follow the text like token embeddings, the same for every text."""

    def __init__(self, queries: int, width: int) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(queries, width) / math.sqrt(width))

    def forward(self, batch: int) -> Tensor:
        """Return the queries for each text, [batch, queries, width].

        It is a copy, because the memory of a sharded parameter is freed when this returns.
        """
        return self.embeddings.repeat(batch, 1, 1)


class Connector(nn.Module):
    """The connector: Linear – SiLU – Linear – RMSNorm × scale, all in float32.

    If `bf16_products` is set, its two matrix products are computed in bfloat16. The norm's weight is initialized to
    √5.5 and the scale to 0.01, so that the output has the magnitude that LTX expects (paper, section 13).
    """

    def __init__(self, width: int, hidden: int, out: int, eps: float) -> None:
        super().__init__()
        self.bf16_products = False
        self.into = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, out)
        self.norm = nn.RMSNorm(out, eps=eps)
        self.scale = nn.Parameter(
            torch.full((1,), 0.01)
        )  # one element, not a scalar, because scalars cannot be sharded
        nn.init.constant_(self.norm.weight, math.sqrt(5.5))

    def forward(self, states: Tensor) -> Tensor:
        """Return the condition [B, queries, out] for Qwen's states [B, queries, width]."""
        with torch.autocast(states.device.type, torch.bfloat16, enabled=self.bf16_products):
            states = self.out(nn.functional.silu(self.into(states.to(self.into.weight.dtype))))
        normal: Tensor = self.norm(states.to(self.norm.weight.dtype))
        return self.scale * normal


class Bridge(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Queries and connector, as they are saved. `width` is Qwen's width, `out` the width of LTX's captions.

    The two are called separately, with Qwen between them. A copy of this file is in every export, so it needs nothing
    but torch and diffusers.
    """

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, width: int = 3584, out: int = 4096, num_queries: int = 256, hidden: int = 3584, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.queries = Queries(num_queries, width)
        self.connector = Connector(width, hidden, out, eps)

    @classmethod
    def from_pretrained(cls, *args: Any, **how: Any) -> Bridge:
        """Return a saved bridge, in float32 whatever is asked for, because that is the connector's precision."""
        kept = {name: value for name, value in how.items() if name not in ("dtype", "torch_dtype")}
        bridge: Bridge = super().from_pretrained(*args, **kept)
        return bridge

    @torch.no_grad()
    def match_embedding_scale(self, embeddings: Tensor) -> None:
        """Scale the queries to the root mean square of Qwen's token embeddings [vocabulary, width].

        Much larger queries would dominate the residual stream, so that the text would hardly change them (paper:
        unspecified).
        """
        size = embeddings.float().square().mean().sqrt()
        queries = self.queries.embeddings
        queries.mul_(size / queries.float().square().mean().sqrt())
