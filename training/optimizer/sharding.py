"""What of a tensor lies in this process, and which processes hold the rest of it.

Tested in tests/training/optimizer/test_prodigy.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def local_part(tensor: Tensor) -> Tensor:
    """The part that lies in this process, in the same memory; of a plain tensor, all. To be called without autograd."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_group(tensors: Iterable[Tensor]) -> dist.ProcessGroup | None:
    """The processes that hold the shards of all these tensors, not those with copies of them. None for whole tensors.

    Raises ValueError where the tensors have not one such group in common.
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
    """The sum of a tensor over a group, the same to the last bit in each process of it, and of any copy of the group.

    That an all-reduce adds in the same order everywhere is no promise; so the parts are gathered, and then added.
    """
    if group is None:
        return values
    parts = [torch.empty_like(values) for _ in range(group.size())]
    dist.all_gather(parts, values, group=group)
    return torch.stack(parts).sum(0)
