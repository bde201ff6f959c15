"""The processes that train together, and their communication besides gradients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous

from nextscene.common.text import first_line
from nextscene.training.distributed.meeting import fresh_store
from nextscene.training.errors import TrainingStopped

T = TypeVar("T")
DEFAULT_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class World:
    """One process of a group of `size`, with its rank and the device that it computes on.

    `timeout` limits the time that its collectives wait for the other processes.
    """

    rank: int
    size: int
    device: torch.device
    timeout: timedelta = DEFAULT_TIMEOUT

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
        mesh = init_device_mesh(
            self.device.type, (replicas, self.size // replicas), mesh_dim_names=("replicate", "shard")
        )
        for group in mesh.get_all_groups():
            group.set_timeout(self.timeout)
        return mesh

    def gloo_group(self) -> dist.ProcessGroup:
        """Return a further group of all processes, for a thread of its own. All processes call this alike."""
        return dist.new_group(backend="gloo", timeout=self.timeout)  # type: ignore[no-any-return]

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


def current_world(timeout: timedelta = DEFAULT_TIMEOUT) -> World:
    """Return the world of a process group that is already initialized, for example by Ray Train."""
    return World(dist.get_rank(), dist.get_world_size(), local_device(), timeout)


@contextmanager
def process_group(timeout: timedelta = DEFAULT_TIMEOUT) -> Iterator[World]:
    """Initialize the process group that torchrun's environment variables describe, or a group of this process alone.

    Yield its world, and destroy the group at the end. Raise TrainingStopped if the processes cannot connect within
    `timeout`, which then limits their collectives.
    """
    device = local_device()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "RANK" in os.environ:
        try:
            store, rank, size = next(rendezvous("env://", timeout=timeout))
            if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True):  # torchrun's, which outlives a restart
                store = fresh_store(store, rank, size, timeout)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
        except (ValueError, RuntimeError) as error:
            place = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
            raise TrainingStopped(
                f"the processes cannot meet at {place}: {first_line(error)}; is the port taken, or a process missing?"
            ) from error
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=timeout)
    try:
        yield current_world(timeout)
    finally:
        dist.destroy_process_group()
