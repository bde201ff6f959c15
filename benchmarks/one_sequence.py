"""Text and queries as one sequence: the usual way, which `training.model.language` is compared with."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Qwen2_5_VLTextModel


def states_of_queries(language: Qwen2_5_VLTextModel, ids: Tensor, queries: Tensor, padding: int) -> Tensor:
    """Return the states [B, Q, width] of queries [B, Q, width] after texts [B, L], with `padding` positions in front.

    Gradient flows through all of them.
    """
    queries = queries.to(language.dtype)
    before = queries.new_zeros(len(ids), padding, queries.shape[2])
    sequence = torch.cat([before, language.embed_tokens(ids), queries], dim=1)
    mask = torch.ones(sequence.shape[:2], dtype=torch.long, device=ids.device)
    mask[:, :padding] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)
    states: Tensor = language(
        inputs_embeds=sequence, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    return states[:, -queries.shape[1] :]
