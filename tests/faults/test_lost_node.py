"""A node that is lost in the middle of a run: it costs only time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import REPOSITORY, SMALL, assert_conserved, assert_same_dataset, build_inline, captioned_spans

pytestmark = pytest.mark.slow

CONFIG = replace(SMALL, unit_size=1)
FLAGS = ["--judge", "none", "--test", "0", "--unit-size", "1", "--units-per-shard", "2"]
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def two_nodes() -> Iterator[subprocess.Popen[str]]:
    cluster = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.two_nodes"],
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield cluster
    finally:
        cluster.communicate(timeout=60)  # closes its input, which ends it


def answer(cluster: subprocess.Popen[str]) -> str:
    assert cluster.stdout is not None
    return cluster.stdout.readline().strip()


def test_a_lost_node_is_nobodys_fault(tmp_path: Path) -> None:
    source, out = captioned_spans(tmp_path, 16, seconds=2.0), tmp_path / "out"
    build_inline(source, tmp_path / "undisturbed", CONFIG)
    with two_nodes() as cluster:
        address = answer(cluster)
        line = [sys.executable, "pipelines/build_nsp.py", "--source", str(source), "--out", str(out), *FLAGS]
        run = subprocess.Popen([*line, "--ray-address", address], cwd=REPOSITORY, env=ENVIRONMENT)
        while run.poll() is None and not any(out.glob("ledger/units/*.parquet")):
            time.sleep(0.05)
        assert run.poll() is None
        assert cluster.stdin is not None
        print("lose one", file=cluster.stdin, flush=True)
        assert answer(cluster) == "lost"
        crashes_counted = False
        deadline = time.monotonic() + 120
        while run.poll() is None and time.monotonic() < deadline:
            crashes_counted |= any(out.glob("parts/crashes/*"))
            time.sleep(0.05)
        assert run.returncode == 0
    assert not crashes_counted
    assert_same_dataset(tmp_path / "undisturbed", out, CONFIG)
    assert_conserved(out, CONFIG)
