"""The cost of each sample of a mix, in FLOPs, by which global batches are dealt to the ranks.

Tested in tests/training/test_dealing.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nextscene.shards.loading.buckets import assign_buckets
from nextscene.shards.loading.shuffle import IntArray
from nextscene.training.metrics.flops import ModelSizes, VaeFlops, flow_matching_flops, grpo_flops, vae_flops
from nextscene.training.model.grid import Grid
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.recipe import Recipe

_TEXT_TOKENS = 128  # of every text: how long it is, is known only once it is read


def sample_costs(
    model: UnifiedModel, vae: Mapping[str, Any], recipe: Recipe, shapes: IntArray, encoded: bool
) -> IntArray:
    """Return the FLOPs of learning from samples of `shapes` [samples, 3], frames, width and height: [samples].

    If `encoded`, the shapes are those of latents, otherwise of clips, which the VAE with this configuration encodes.
    """
    _, first, bucket = np.unique(assign_buckets(shapes), return_index=True, return_inverse=True)
    costs = []
    for frames, width, height in shapes[first].tolist():
        grid = Grid(frames, height, width) if encoded else model.ratios.grid(frames, height, width)
        costs.append(_cost(model, vae, recipe, grid, encoded))
    return np.array(costs, np.int64)[bucket]


def _cost(model: UnifiedModel, vae: Mapping[str, Any], recipe: Recipe, grid: Grid, encoded: bool) -> int:
    sizes, trained = model_sizes(model, grid, _TEXT_TOKENS), model.trains_transformer
    if recipe.is_reinforcement_learning:
        learned = round(recipe.policy.fraction * (recipe.policy.steps - 1))
        return grpo_flops(sizes, recipe.policy, learned, trained, vae_of_grid(model, vae, grid).decode).total
    encode = 0 if encoded else vae_of_grid(model, vae, grid).encode
    return flow_matching_flops(sizes, 1, trained, encode).total


def model_sizes(model: UnifiedModel, grid: Grid, prefix: int) -> ModelSizes:
    """Return the sizes of the models for clips of `grid` whose texts have `prefix` tokens."""
    bridge = model.bridge.config
    return ModelSizes(
        model.transformer.config, model.language.config, grid.tokens, prefix, bridge.num_queries, bridge.hidden
    )


def vae_of_grid(model: UnifiedModel, vae: Mapping[str, Any], grid: Grid) -> VaeFlops:
    """Return the FLOPs of encoding and of decoding a clip of `grid` by the VAE with this configuration."""
    return vae_flops(vae, *model.ratios.clip(grid))
