"""The check that every node of a cluster sees OUT, by a probe file. Tested in tests/pipelines/test_ray_job.py."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.storage import Storage
from nextscene.common.text import first_line
from nextscene.shards.format.layout import owns

_PROBE = ".probe-"
_ANSWER_SECONDS = 60


def check_shared(out: Storage) -> None:
    """Raise UsageError if OUT is a local folder that some node of the cluster does not see.

    Raise RunStopped if a node does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if not out.is_local or len(nodes) < 2:
        return
    token = f"{_PROBE}{uuid.uuid4().hex}"
    out.write(token, b"shared")
    try:
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            seen = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_sees).remote(out, token)
            ready, _ = ray.wait([seen], timeout=_ANSWER_SECONDS)
            if not ready:
                raise RunStopped(f"node {node['NodeManagerAddress']} did not answer within {_ANSWER_SECONDS} s")
            if not _result(seen, node):
                raise UsageError(
                    f"`out` {out.display_uri} is not shared: node {node['NodeManagerAddress']} does not see it;"
                    " use a shared file system or s3://…"
                )
    finally:
        out.delete(token)


def _result(seen: Any, node: Mapping[str, Any]) -> bool:
    """Return whether the node sees OUT; True if the node has left the cluster. Raise RunStopped if the check failed."""
    import ray

    try:
        return bool(ray.get(seen))
    except ray.exceptions.RayError as error:
        if not any(one["Alive"] for one in ray.nodes() if one["NodeID"] == node["NodeID"]):
            return True
        cause, address = getattr(error, "cause", None) or error, node["NodeManagerAddress"]
        raise RunStopped(f"node {address} cannot look into `out`: {first_line(cause)}; see to that node") from error


def sweep_probes(out: Storage) -> None:
    """Delete the probe files that `check_shared` left in OUT when it was killed."""
    for entry in out.files():
        if entry.path.startswith(_PROBE) and owns(entry.path):
            out.delete(entry.path)


def _sees(out: Storage, token: str) -> bool:
    return out.stat(token) is not None
