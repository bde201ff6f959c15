"""The Ray cluster that a run works on: the one it is inside of, the one it is told, or its own."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from curation.errors import RunStopped, UsageMistake
from shards.storage import Storage

_LOOPBACK = "127.0.0.1"
_OBJECT_STORE_BYTES = 100 << 20


def inside_job() -> bool:
    """Whether this process was started by `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


@contextmanager
def connected(workers: int | None, address: str | None) -> Iterator[None]:
    """Connects to `address`, else RAY_ADDRESS, else starts Ray on this machine with `workers` CPUs, on loopback."""
    address = address or os.environ.get("RAY_ADDRESS")
    if address or inside_job():
        try:
            ray.init(address=address or "auto", logging_level=logging.WARNING, log_to_driver=False)
        except ConnectionError as error:
            raise UsageMistake(f"no Ray cluster answers at {address}: {error}") from error
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address="local", num_cpus=workers, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES,
            logging_level=logging.WARNING, log_to_driver=False, _node_ip_address=_LOOPBACK,
        )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def check_shared(out: Storage) -> None:
    """Raises UsageMistake when OUT is a local folder that some node of the cluster does not see."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if not out.is_local or len(nodes) < 2:
        return
    token = f".probe-{uuid.uuid4().hex}"
    out.write(token, b"shared")
    try:
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            sees = _sees.options(scheduling_strategy=there).remote(out, token)
            ready, _ = ray.wait([sees], timeout=60)
            if not ready:
                raise RunStopped(f"node {node['NodeManagerAddress']} did not answer in a minute")
            if not ray.get(sees):
                raise UsageMistake(
                    f"--out {out.shown} is not shared: node {node['NodeManagerAddress']} does not see it;"
                    " use a shared file system or s3://…"
                )
    finally:
        out.delete(token)


@ray.remote(num_cpus=0, max_retries=0)
def _sees(out: Storage, token: str) -> bool:
    return out.stat(token) is not None
