"""The processes that train together, and their communication besides gradients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from nextscene.common.text import first_line
from nextscene.training.errors import TrainingStopped

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """One process of a group of `size`, with its rank and the device that it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_leader(self) -> bool:
        """True on rank 0, which writes files and reports progress."""
        return self.rank == 0

    def mesh(self, replicas: int) -> DeviceMesh:
        """Return a mesh of all devices with one dimension, for sharding.

        If `replicas` is more than 1, a dimension for replication comes before it.
        """
        if replicas == 1:
            return init_device_mesh(self.device.type, (self.size,), mesh_dim_names=("shard",))
        return init_device_mesh(
            self.device.type, (replicas, self.size // replicas), mesh_dim_names=("replicate", "shard")
        )

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, in float64."""
        total = values.to(self.device, torch.float64)
        dist.all_reduce(total)
        return total

    def all_reduce_max(self, value: float) -> float:
        """Return the maximum over all processes."""
        return float(self.all_reduce_maxima(torch.tensor([value], dtype=torch.float64)))

    def all_reduce_maxima(self, values: Tensor) -> Tensor:
        """Return the maximum of each value over all processes, in float64."""
        found = values.to(self.device, torch.float64)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found

    def from_leader(self, value: T | None) -> T:
        """Return the leading process's `value` on every process."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        dist.barrier()

    def any_rank(self, flag: bool) -> bool:
        """Return True on every process if `flag` is True on any of them."""
        return bool(self.all_reduce_sum(torch.tensor([float(flag)])).item())


def local_device() -> torch.device:
    """Return the GPU of this process, or the CPU if no GPU is available."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else _CPU


_CPU = torch.device("cpu")


def current_world() -> World:
    """Return the world of a process group that is already initialized, for example by Ray Train."""
    return World(dist.get_rank(), dist.get_world_size(), local_device())


@contextmanager
def process_group() -> Iterator[World]:
    """Initialize the process group that torchrun's environment variables describe, or a group of this process alone.

    Yield its world, and destroy the group at the end. Raise TrainingStopped if the processes cannot connect.
    """
    device = local_device()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "RANK" in os.environ:
        try:
            dist.init_process_group(backend)
        except (ValueError, RuntimeError) as error:
            place = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
            raise TrainingStopped(
                f"the processes cannot meet at {place}: {first_line(error)}; is the port taken, or a process missing?"
            ) from error
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield current_world()
    finally:
        dist.destroy_process_group()
