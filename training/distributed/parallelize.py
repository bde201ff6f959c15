"""How the model lies on the devices: sharded by FSDP2, keeping less for the backward pass, compiled by the block.

Parts that are trained and parts that are frozen never share a group: they are kept in different precisions.

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

# LTX's transformer ends in a view; nothing here changes one in place, which is what is warned of.
warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


def parallelize(model: UnifiedModel, parallel: ParallelConfig, world: World) -> None:
    """Changes `model` in place. Its parts must be on their device; what is trained, in float32."""
    if parallel.checkpointing != "none":
        for block in (*model.language.layers, *model.transformer.transformer_blocks):
            _checkpoint_activations(block, parallel.checkpointing == "selective")
    if parallel.compile and world.device.type == "cuda":
        # Not Qwen's layers: to the compiler each is another program, by its own place in the cache.
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
    for part in (model.bridge.queries, model.bridge.connector):  # apart: Qwen is called between them
        _shard(part, mesh, MixedPrecisionPolicy())
    if not parallel.gather_language:
        for part in (*model.language.layers, model.language):
            _shard(part, mesh, MixedPrecisionPolicy(cast_forward_inputs=False))


def _shard(part: nn.Module, mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> None:
    # After each forward pass only the shards remain, also of the outermost: what is evaluated is never out of date.
    fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def sharded_modules(model: UnifiedModel) -> list[FSDPModule]:
    """The outermost sharded modules, which have gradients to reduce."""
    parts = (model.bridge.queries, model.bridge.connector, model.transformer)
    return [part for part in parts if isinstance(part, FSDPModule)]


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _checkpoint_activations(block: nn.Module, selective: bool) -> None:
    """Has the block's activations computed again in the backward pass: all, or all but products and attention.

    Not by the models' own switches: transformers' drops the cache of the text without an error.
    """
    contexts: dict[str, Any] = {"context_fn": _keeping_products} if selective else {}
    inner = block.forward

    def forward(*inputs: Any, **named: Any) -> Any:  # a function: of a bare `checkpoint` the compiler sees nothing
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
