"""Qwen2.5-VL's language model, frozen: the text is read once without gradient, then the queries read it.

Qwen is causal and the queries come last, so no token of the text sees one. Its keys and values can be computed apart,
and gradients flow through the queries' positions only: exact, and several times cheaper than both as one sequence.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Qwen2_5_VLTextModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class TokenBatch(NamedTuple):
    """Texts as token ids [B, L], right-padded, with a mask that is 1 where there is a token."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> TokenBatch:
        return TokenBatch(self.ids.to(device), self.mask.to(device))

    @property
    def lengths(self) -> Tensor:
        """[B]: tokens of each text."""
        return self.mask.sum(1)


class Prefix(NamedTuple):
    """Texts that were read: their keys and values in every layer, and their words."""

    cache: DynamicCache
    words: TokenBatch


@torch.no_grad()
def encode_text(language: Qwen2_5_VLTextModel, words: TokenBatch) -> Prefix:
    positions = (words.mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=language.config)
    language(
        input_ids=words.ids,
        attention_mask=words.mask,
        position_ids=_three(positions),
        past_key_values=cache,
        use_cache=True,
    )
    return Prefix(cache, words)


def encode_queries(language: Qwen2_5_VLTextModel, prefix: Prefix, queries: Tensor) -> Tensor:
    """[B, Q, width]: the last hidden states, after the final norm, at the queries [B, Q, width] behind the text."""
    words = prefix.words
    count = queries.shape[1]
    positions = words.lengths[:, None] + torch.arange(count, device=queries.device)
    states: Tensor = language(
        inputs_embeds=queries.to(language.dtype),
        attention_mask=torch.cat([words.mask, words.mask.new_ones(len(words.mask), count)], dim=1),
        position_ids=_three(positions),
        past_key_values=_read_only(prefix.cache),
        use_cache=True,
    ).last_hidden_state
    return states


def _three(positions: Tensor) -> Tensor:
    """[3, B, L]: M-RoPE's three axes, which are one for text."""
    return positions.expand(3, *positions.shape)


class _ReadOnlyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of the text in one layer. New ones are seen, not kept: it may be run again for its gradient."""

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
