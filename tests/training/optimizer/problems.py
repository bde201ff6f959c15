"""What the optimizer's tests have in common: a small regression, whole or sharded, and a watch on who waits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.utils._python_dispatch import TorchDispatchMode

CLIPS = 24


def model(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Of odd sizes: over two processes, its last layer lies in one of them alone. A bias begins as zeros."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(7, 13), nn.Tanh(), nn.Linear(13, 1)).to(dtype)
    nn.init.zeros_(layers[0].bias)
    return layers


def sharded(mesh: DeviceMesh) -> nn.Sequential:
    layers = model()
    for layer in (layers[0], layers[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(layers, mesh=mesh)
    return layers


def loss(layers: nn.Module, part: int = 0, parts: int = 1) -> Tensor:
    """Over one of equal parts of the data, in the precision of the weights."""
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randn(CLIPS, size, generator=generator, dtype=torch.float64) for size in (7, 1))
    mine = slice(part * CLIPS // parts, (part + 1) * CLIPS // parts)
    dtype = next(layers.parameters()).dtype
    return (layers(inputs[mine].to(dtype)) - targets[mine].to(dtype)).square().mean()


class NobodyWaits(TorchDispatchMode):
    """Fails where a value is asked back from the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value was asked back from the device"
        return func(*args, **(kwargs or {}))
