"""The number of CPUs that a run may use now, which changes as nodes join and leave the cluster.

Tested in tests/curation/run/test_engine.py.
"""

from __future__ import annotations

import logging

import ray

from nextscene.common.awake_clock import AwakeClock
from nextscene.common.errors import RunStopped

_UPDATE_SECONDS = 5.0
_WARN_SECONDS = 60.0
_WITHOUT_CPU_SECONDS = 1800.0
_log = logging.getLogger(__name__)


class ClusterSize:
    """The size of the cluster: `slots` CPUs to use, at most `workers`; the smallest node has `node_cpus`."""

    def __init__(self, workers: int | None) -> None:
        self._workers = workers
        self._clock = AwakeClock()
        self._updated = float("-inf")
        self._had_cpus = self._warned = 0.0
        self.slots = 1
        self.node_cpus = 1

    def update(self) -> None:
        """Count the CPUs again. Raise RunStopped if no node has had a CPU for half an hour."""
        now = self._clock.seconds()
        if now - self._updated < _UPDATE_SECONDS:
            return
        self._updated = now
        cpus = int(ray.cluster_resources().get("CPU", 0))
        self.slots = max(1, cpus if self._workers is None else min(self._workers, cpus))
        of_nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        self.node_cpus = min((cpus for cpus in of_nodes if cpus), default=1)
        if cpus:
            self._had_cpus = now
        elif now - self._had_cpus > _WITHOUT_CPU_SECONDS:
            raise RunStopped(
                f"no node of the Ray cluster has had a CPU for {_WITHOUT_CPU_SECONDS / 60:.0f} minutes; add one"
            )
        elif now - max(self._had_cpus, self._warned) > _WARN_SECONDS:
            self._warned = now
            _log.warning("no node of the Ray cluster has a CPU; waiting for one to join")
