"""Placement of the model on the devices: FSDP2 sharding, activation checkpointing, compilation of each block.

Trained and frozen parts are never sharded in one group, because they are kept in different precisions.

Tested in tests/training/test_trainer.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from nextscene.training.config import ParallelConfig
from nextscene.training.distributed.process_group import World
from nextscene.training.model.unified import UnifiedModel

# LTX's transformer returns a view. The warning is about changing such a view in place, which nothing here does.
warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


def parallelize(model: UnifiedModel, parallel: ParallelConfig, world: World) -> None:
    """Shard `model` in place. Its parts must be on their device, and the trained ones must be in float32."""
    if parallel.checkpointing != "none":
        for block in (*model.language.layers, *model.transformer.transformer_blocks):
            _checkpoint_activations(block, parallel.checkpointing == "selective")
    if parallel.compile and world.device.type == "cuda":
        # Not Qwen's layers: each uses its own index into the KV cache, so the compiler would compile each separately.
        for block in model.transformer.transformer_blocks:
            block.compile()
    mesh = world.mesh(parallel.replicas)
    # Inputs are cast where they are made: positions and timesteps must stay in float32.
    policy = MixedPrecisionPolicy(
        param_dtype=model.dtype if _is_trained(model.transformer) else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    for part in (*model.transformer.transformer_blocks, model.transformer):
        _shard(part, mesh, policy)
    for part in (model.bridge.queries, model.bridge.connector):  # separately: Qwen is called between them
        _shard(part, mesh, MixedPrecisionPolicy())
    if not parallel.gather_language:
        for part in (*model.language.layers, model.language):
            _shard(part, mesh, MixedPrecisionPolicy(cast_forward_inputs=False))


def _shard(part: nn.Module, mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> None:
    # The outermost module too is resharded after each forward pass: full weights that were kept would be out of date
    # in validation after the weights change.
    fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def sharded_modules(model: UnifiedModel) -> list[FSDPModule]:
    """Return the outermost sharded modules that may have gradients to reduce."""
    parts = (model.bridge.queries, model.bridge.connector, model.transformer)
    return [part for part in parts if isinstance(part, FSDPModule)]


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _checkpoint_activations(block: nn.Module, selective: bool) -> None:
    """Recompute the block's activations in the backward pass: all, or all but matrix products and attention.

    The models' own switches are not used: that of transformers drops the KV cache of the text without an error.
    """
    contexts: dict[str, Any] = {"context_fn": _keeping_products} if selective else {}
    inner = block.forward

    def forward(
        *inputs: Any, **named: Any
    ) -> Any:  # a function, because the compiler cannot see into a bare `checkpoint`
        return checkpoint(inner, *inputs, use_reentrant=False, **contexts, **named)

    block.forward = forward


def _keeping_products() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return create_selective_checkpoint_contexts(_policy)  # type: ignore[no-any-return, no-untyped-call]


def _policy(_context: object, operation: Callable[..., Any], *_: object, **__: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE


_PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
}
