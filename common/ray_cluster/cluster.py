"""The Ray cluster that a run works on: the one it is inside of, the one it is told, or its own.

Ray is imported late, here and in the engine: it reads its environment as it is imported, and a run that has nothing to
do should not wait for it.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nextscene.common.call_timeout import call_with_timeout
from nextscene.common.ray_cluster.local_ray import check_cluster, own_ray
from nextscene.common.ray_cluster.start_errors import StartFault, check_address, no_answer, of_cluster

_ANSWER_SECONDS = 60
_CONNECT_SECONDS = 25.0
_DISCONNECT_SECONDS = 10.0
_OF_A_CLUSTER = ("RAY_GCS_SERVER_PORT", "RAY_REDIS_ADDRESS")
_log = logging.getLogger(__name__)


def inside_job() -> bool:
    """Return whether this process was started by `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def cluster_address(given: str | None) -> str | None:
    """Where the cluster to use is: `given`, else RAY_ADDRESS. None for a Ray of our own on this machine."""
    address = given or os.environ.get("RAY_ADDRESS") or ("auto" if inside_job() else None)
    return None if address == "local" else address


@contextmanager
def connected(workers: int | None, address: str | None, training: bool = False) -> Iterator[None]:
    """Connects to the cluster at `address`, or starts Ray on this machine with `workers` CPUs, on loopback.

    `training` is for Ray Train: what its workers print is brought here, and all of them know this cluster. Raise
    UsageError for an address that cannot work or where no cluster answers, RunStopped where Ray does not start or
    answer within its time. What this process does on signals stays as it is.
    """
    address = cluster_address(address)
    # Under `uv run`, Ray would otherwise resolve the whole environment anew in each worker.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if address is None:
        _keep_to_ourselves()
        with own_ray(workers) as ours, _driver(ours, training):
            yield
    else:
        check_address(address)
        check_cluster(address)
        with _driver(address, training):
            yield


@contextmanager
def _driver(address: str, training: bool) -> Iterator[None]:
    """Make this process a driver of the cluster. Raise UsageError, RunStopped.

    Ray is called in a thread: only in the main thread would it put its own answer to SIGTERM in the place of ours, and
    a call that hangs there could not be ended.
    """
    import ray

    logging.getLogger("ray._private.worker").addFilter(_not_of_sigterm)
    setup = {"worker_process_setup_hook": _know_the_cluster} if training else None
    options = {"logging_level": logging.WARNING, "log_to_driver": training, "runtime_env": setup}
    try:
        try:
            call_with_timeout(lambda: ray.init(address=address, **options), _CONNECT_SECONDS)
        except TimeoutError as late:
            raise no_answer(address, f"not connected within {_CONNECT_SECONDS:g} s") from late
        except (Exception, SystemExit) as error:
            raise of_cluster(address, StartFault(type(error).__name__, str(error), str(error.__cause__))) from error
        yield
    finally:
        try:
            call_with_timeout(ray.shutdown, _DISCONNECT_SECONDS)
        except TimeoutError:
            atexit.unregister(ray.shutdown)  # it would wait at exit, too
            _log.warning("Ray at %s was left without a goodbye: it did not answer", address)


def _not_of_sigterm(record: logging.LogRecord) -> bool:
    return "SIGTERM handler is not set" not in record.getMessage()


def _know_the_cluster() -> None:
    """Run by each process of a job as it starts. Ray Train frees what a run holds once a cluster says that it is gone.

    It would ask any cluster on its machine. One that has no dashboard cannot say, which it would tell every second.
    """
    import ray

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    logging.getLogger("ray.train.v2._internal.execution.controller.placement_group_cleaner").setLevel(logging.ERROR)


def _keep_to_ourselves() -> None:
    """Loopback for a Ray of this run alone, and a token that is written nowhere.

    Left to itself Ray would write one into the home directory, and any cluster started later would ask for it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_enable_metrics_collection"] = "0"  # noqa: SIM112 - Ray's own spelling; no port for metrics
    # The one switch by which all of Ray's processes listen on loopback alone; it is meant for other systems.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    for name in _OF_A_CLUSTER:
        os.environ.pop(name, None)
    if "ray" not in sys.modules:  # whatever was set for another cluster
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
