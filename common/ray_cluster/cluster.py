"""The Ray cluster that a run works on: the one that the process is in, the one at a given address, or its own.

Ray is imported late, here and in the engine: it reads its environment on import, and a run with nothing to do should
not wait for it.
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
from nextscene.common.ray_cluster.start_errors import StartFault, check_address, cluster_error, no_answer

_ANSWER_SECONDS = 60
_CONNECT_SECONDS = 25.0
_DISCONNECT_SECONDS = 10.0
_CLUSTER_VARIABLES = ("RAY_GCS_SERVER_PORT", "RAY_REDIS_ADDRESS")
_log = logging.getLogger(__name__)


def inside_job() -> bool:
    """Return whether this process was started by `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def cluster_address(given: str | None) -> str | None:
    """Return `given`, else RAY_ADDRESS, else the cluster of this job. None for a Ray of our own on this machine."""
    address = given or os.environ.get("RAY_ADDRESS") or ("auto" if inside_job() else None)
    return None if address == "local" else address


@contextmanager
def connected(workers: int | None, address: str | None, training: bool = False) -> Iterator[None]:
    """Connect to the cluster at `address`, or start Ray on this machine with `workers` CPUs, on loopback.

    `training` is for Ray Train: the output of its workers is printed here, and all of them know this cluster. Raise
    UsageError for an address that cannot work or does not answer, RunStopped if Ray does not start or answer in time.
    The signal handlers of this process stay as they are.
    """
    address = cluster_address(address)
    # Under `uv run`, Ray would otherwise resolve the whole environment in each worker again.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if address is None:
        _isolate()
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

    Ray is called in a thread: in the main thread it would replace our handler of SIGTERM, and a call that hangs could
    not be ended.
    """
    import ray

    logging.getLogger("ray._private.worker").addFilter(_is_not_about_sigterm)
    setup = {"worker_process_setup_hook": _set_up_worker} if training else None
    options = {"logging_level": logging.WARNING, "log_to_driver": training, "runtime_env": setup}
    try:
        try:
            call_with_timeout(lambda: ray.init(address=address, **options), _CONNECT_SECONDS)
        except TimeoutError as late:
            raise no_answer(address, f"not connected within {_CONNECT_SECONDS:g} s") from late
        except (Exception, SystemExit) as error:
            raise cluster_error(address, StartFault(type(error).__name__, str(error), str(error.__cause__))) from error
        yield
    finally:
        try:
            call_with_timeout(ray.shutdown, _DISCONNECT_SECONDS)
        except TimeoutError:
            atexit.unregister(ray.shutdown)  # it would also wait at exit
            _log.warning("Ray at %s did not answer when the run disconnected from it", address)


def _is_not_about_sigterm(record: logging.LogRecord) -> bool:
    return "SIGTERM handler is not set" not in record.getMessage()


def _set_up_worker() -> None:
    """Set up each worker process of a job, so that Ray Train asks this cluster whether the run still exists.

    Otherwise it would ask any cluster on its machine. A cluster without a dashboard cannot answer, and a line about
    that would be logged each second.
    """
    import ray

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    logging.getLogger("ray.train.v2._internal.execution.controller.placement_group_cleaner").setLevel(logging.ERROR)


def _isolate() -> None:
    """Keep a Ray of our own to loopback, with a token that is never written to a file.

    Otherwise Ray would write a token into the home directory, and any cluster started later would ask for it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_enable_metrics_collection"] = "0"  # noqa: SIM112 - Ray's own spelling; no port for metrics
    # The one switch by which all of Ray's processes listen on loopback alone; it is meant for other systems.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    for name in _CLUSTER_VARIABLES:
        os.environ.pop(name, None)
    if "ray" not in sys.modules:  # replaces what was set for another cluster
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
