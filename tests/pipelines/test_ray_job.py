"""The command as a job of a Ray cluster that runs already, the way docs and --help tell users to submit it."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.command import SMALL_FLAGS, Command, Ended, Place, place
from tests.support import REPOSITORY, SMALL, assert_conserved, assert_same_dataset, build_inline, captioned_spans

pytestmark = pytest.mark.slow

OPEN = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
"""Who starts the cluster, who submits and the job itself must agree on this; the job inherits it from the cluster."""


@dataclass(frozen=True)
class Cluster:
    """A head node on loopback, on ports of its own."""

    here: Place
    gcs_port: int
    dashboard_port: int

    def submit(self, *flags: str, code: int) -> Ended:
        """`ray job submit` from the repository; what the job says comes out on stdout."""
        command = ["ray", "job", "submit", "--address", f"http://127.0.0.1:{self.dashboard_port}"]
        command += ["--working-dir", ".", "--", "python", "pipelines/build_nsp.py", *flags]
        with self.here.start(*command, env=OPEN) as submission:
            ended = submission.wait()
        assert ended.code == code, f"{ended.stdout}\n{ended.stderr}"
        return ended

    @property
    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.dashboard_port}/api/jobs/", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def uploaded(self) -> Path:
        """The copy of the repository in which jobs run."""
        (copy,) = self.here.ray.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
        return copy


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with place() as here:
        ports = _free_ports(8)
        gcs, dashboard, agent, agent_grpc, client, node, objects, runtime = ports
        command = ["ray", "start", "--head", "--block", "--num-cpus", "2", "--node-ip-address", "127.0.0.1"]
        command += ["--temp-dir", str(here.ray), "--object-store-memory", "100000000", "--disable-usage-stats"]
        command += ["--include-dashboard", "true", "--dashboard-host", "127.0.0.1", "--dashboard-port", f"{dashboard}"]
        command += ["--port", f"{gcs}", "--dashboard-agent-listen-port", f"{agent}"]
        command += ["--dashboard-agent-grpc-port", f"{agent_grpc}", "--ray-client-server-port", f"{client}"]
        command += ["--node-manager-port", f"{node}", "--object-manager-port", f"{objects}"]
        command += ["--runtime-env-agent-port", f"{runtime}"]
        cluster = Cluster(here, gcs, dashboard)
        with here.start(*command, env=OPEN) as head:
            head.until(lambda: cluster.answers)
            yield cluster
            _end(head)


def _end(head: Command) -> None:
    head.send(15)
    head.wait()
    assert head.left_behind() == []


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def test_a_job_builds_the_same_dataset_from_a_small_upload(cluster: Cluster, tmp_path: Path) -> None:
    manifest = captioned_spans(tmp_path / "in", 6)
    out = tmp_path / "out"
    ended = cluster.submit("--source", str(manifest), "--out", str(out), *SMALL_FLAGS, code=0)
    assert "6 clips, 6 decided, 6 in shards" in ended.stdout
    build_inline(manifest, tmp_path / "local", SMALL)
    assert_same_dataset(tmp_path / "local", out)
    assert_conserved(out)
    copy = cluster.uploaded()
    assert (copy / "pipelines" / "build_nsp.py").is_file()
    # What git ignores stays here; Ray would refuse a working directory of hundreds of megabytes.
    assert not any((copy / name).exists() for name in (".venv", ".git", "data", "runs"))
    assert sum(file.stat().st_size for file in copy.rglob("*") if file.is_file()) < 10_000_000


def test_a_job_refuses_relative_paths(cluster: Cluster, tmp_path: Path) -> None:
    """They would lie in the copy of the repository, which goes with the job."""
    said = cluster.submit("--source", str(tmp_path), "--out", "data/of-a-job", code=1).stdout
    assert "exit code 2" in said
    # Ray repeats the end of the log when a job fails.
    assert {line.partition(":")[2] for line in said.splitlines() if line.startswith("error: ")} == {
        " --out data/of-a-job: relative paths mean nothing inside a cluster job, which runs in a copy of this folder;"
        " give an absolute path or s3://…"
    }
    assert "Traceback" not in said
    assert not (REPOSITORY / "data" / "of-a-job").exists()
