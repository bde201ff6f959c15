"""Qwen2.5-VL's language model, frozen: the text is encoded once without gradient, then the queries attend to it.

Qwen is causal and the queries come last, so no token of the text attends to a query. The keys and values of the text
can be computed first, and gradients pass the positions of the queries only. The result is exact, and several times
cheaper than one sequence of both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Qwen2_5_VLTextModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class TokenBatch(NamedTuple):
    """Texts as token ids [B, L], right-padded, with a mask that is 1 where there is a token.

    `cut` is the number of texts whose end was cut off because they were too long.
    """

    ids: Tensor
    mask: Tensor
    cut: int = 0

    def to(self, device: torch.device) -> TokenBatch:
        """Return the batch on another device."""
        return TokenBatch(self.ids.to(device), self.mask.to(device), self.cut)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text, [B]."""
        return self.mask.sum(1)


class Prefix(NamedTuple):
    """Encoded texts: their keys and values in every layer (the KV cache), and their tokens."""

    cache: DynamicCache
    text_tokens: TokenBatch


@torch.no_grad()
def encode_text(language: Qwen2_5_VLTextModel, text_tokens: TokenBatch) -> Prefix:
    """Return the KV cache of texts, without gradient."""
    positions = (text_tokens.mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=language.config)
    language(
        input_ids=text_tokens.ids,
        attention_mask=text_tokens.mask,
        position_ids=_three(positions),
        past_key_values=cache,
        use_cache=True,
    )
    return Prefix(cache, text_tokens)


def encode_queries(language: Qwen2_5_VLTextModel, prefix: Prefix, queries: Tensor) -> Tensor:
    """Return the last hidden states, after the final norm, at the queries behind the text, both [B, Q, width]."""
    text_tokens = prefix.text_tokens
    count = queries.shape[1]
    positions = text_tokens.lengths[:, None] + torch.arange(count, device=queries.device)
    states: Tensor = language(
        inputs_embeds=queries.to(language.dtype),
        attention_mask=torch.cat([text_tokens.mask, text_tokens.mask.new_ones(len(text_tokens.mask), count)], dim=1),
        position_ids=_three(positions),
        past_key_values=_read_only(prefix.cache),
        use_cache=True,
    ).last_hidden_state
    return states


def _three(positions: Tensor) -> Tensor:
    """Return the positions [3, B, L] of M-RoPE's three axes, which are equal for text."""
    return positions.expand(3, *positions.shape)


class _ReadOnlyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of the text in one layer. New ones are not stored, so that the layer can be recomputed."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


def _read_only(cache: DynamicCache) -> Cache:
    layers = []
    for full in cache.layers:
        layer = _ReadOnlyLayer()
        layer.lazy_initialization(full.keys, full.values)
        layer.keys, layer.values = full.keys, full.values
        layers.append(layer)
    return Cache(layers=layers)
