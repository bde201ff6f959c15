"""The local shard of a tensor, and the group of processes that share the tensor.

Tested in tests/training/optimizer/test_prodigy.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def local_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, in the same memory; a plain tensor is returned whole.

    Call this without autograd.
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_group(tensors: Iterable[Tensor]) -> dist.ProcessGroup | None:
    """Return the group of processes over which all these tensors are sharded, or None if they are whole.

    Processes that have copies of the same shards are not part of it. Raise ValueError if the tensors are not all
    sharded over the same processes.
    """
    groups = {group.group_name if group else "": group for tensor in tensors for group in _groups(tensor)}
    if len(groups) != 1:
        raise ValueError(f"parameters must all be sharded over the same processes, or all be whole: {sorted(groups)}")
    return groups.popitem()[1]


def _groups(tensor: Tensor) -> list[dist.ProcessGroup | None]:
    if not isinstance(tensor, DTensor):
        return [None]
    sharded = [dim for dim, placement in enumerate(tensor.placements) if placement.is_shard()]
    return [tensor.device_mesh.get_group(dim) for dim in sharded] or [None]


def sum_over_group(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Return the sum of a tensor over a group, bit for bit the same in each process and in each copy of the group.

    An all-reduce does not guarantee the same order of addition everywhere, so the parts are gathered and then added.
    """
    if group is None:
        return values
    parts = [torch.empty_like(values) for _ in range(group.size())]
    dist.all_gather(parts, values, group=group)
    return torch.stack(parts).sum(0)
