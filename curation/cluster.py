"""The Ray cluster that a run works on: the one it is inside of, the one it is told, or its own.

Ray is imported late, here and in the engine: it reads its environment as it is imported, and a run that has nothing to
do should not wait for it.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from curation.errors import RunStopped, UsageMistake
from shards.layout import owns
from shards.storage import Storage

_LOOPBACK = "127.0.0.1"
_OBJECT_STORE_BYTES = 100 << 20
_ANSWER_SECONDS = 60
_PROBE = ".probe-"
_SOCKET_FOLDER_CHARACTERS = 36  # a socket's path has 107 at most; Ray adds up to 71


def inside_job() -> bool:
    """Whether this process was started by `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


@contextmanager
def connected(workers: int | None, address: str | None, training: bool = False) -> Iterator[None]:
    """Connects to `address`, else RAY_ADDRESS, else starts Ray on this machine with `workers` CPUs, on loopback.

    `training` is for Ray Train: what its workers print is brought here, and all of them know this cluster. Raises
    UsageMistake when no cluster answers there.
    """
    address = address or os.environ.get("RAY_ADDRESS") or ("auto" if inside_job() else None)
    # Under `uv run`, Ray would otherwise resolve the whole environment anew in each worker.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if address is None:
        _keep_to_ourselves()
    import ray

    setup = {"worker_process_setup_hook": _know_the_cluster} if training else None
    with _our_own_signals():
        if address is None:
            ray.init(
                address="local", num_cpus=workers, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES,
                logging_level=logging.WARNING, log_to_driver=training, runtime_env=setup, _node_ip_address=_LOOPBACK,
            )  # fmt: skip
        else:
            try:
                ray.init(address=address, logging_level=logging.WARNING, log_to_driver=training, runtime_env=setup)
            except ConnectionError as error:
                raise UsageMistake(f"no Ray cluster answers at {address}; start one with: ray start --head") from error
    try:
        yield
    finally:
        ray.shutdown()


def _know_the_cluster() -> None:
    """Run by each process of a job as it starts. Ray Train frees what a run holds once a cluster says that it is gone.

    It would ask any cluster on its machine. One that has no dashboard cannot say, which it would tell every second.
    """
    import ray

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    logging.getLogger("ray.train.v2._internal.execution.controller.placement_group_cleaner").setLevel(logging.ERROR)


@contextmanager
def _our_own_signals() -> Iterator[None]:
    """As it starts, Ray puts its own answer to SIGTERM, a bare exit, in the place of ours. This puts ours back."""
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:  # Ray's answer to a signal that came meanwhile
        raise KeyboardInterrupt from end
    finally:
        if ours is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


def check_shared(out: Storage) -> None:
    """Raises UsageMistake when OUT is a local folder that some node of the cluster does not see."""
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
            if not ray.get(seen):
                raise UsageMistake(
                    f"--out {out.shown} is not shared: node {node['NodeManagerAddress']} does not see it;"
                    " use a shared file system or s3://…"
                )
    finally:
        out.delete(token)


def sweep_probes(out: Storage) -> None:
    """Deletes what `check_shared` left in OUT when it was killed."""
    for entry in out.files():
        if entry.path.startswith(_PROBE) and owns(entry.path):
            out.delete(entry.path)


def _sees(out: Storage, token: str) -> bool:
    return out.stat(token) is not None


def _keep_to_ourselves() -> None:
    """A token of this process alone for a Ray of this process alone, and sockets whose paths the system takes.

    Left to itself Ray would write one into the home directory, and any cluster started later would ask for it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if len(tempfile.gettempdir()) > _SOCKET_FOLDER_CHARACTERS:
        os.environ.setdefault("RAY_TMPDIR", "/tmp")  # noqa: S108 - Ray makes a folder of its own there
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
