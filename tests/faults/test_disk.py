"""A disk that is full or read-only: the run stops with exit code 3, and continues once the disk is writable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import (
    REPOSITORY,
    SMALL,
    assert_conserved,
    assert_same_dataset,
    build_inline,
    captioned_spans,
    ledger,
)

pytestmark = pytest.mark.slow

FLAGS = ["--judge", "none", "--test", "0", "--unit-size", "2", "--units-per-shard", "2", "--workers", "1"]
ROOMY, TIGHT = "size=64m", "size=600k"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount and yield a separate disk that is too small for the dataset."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", TIGHT, "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captioned_spans(tmp_path_factory.mktemp("source"), 8, seconds=1.0)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    build_inline(source, out, SMALL)
    assert sum(file.stat().st_size for file in out.rglob("*.tar")) > 1_200_000, "the small disk would hold it"
    return out


@pytest.fixture
def run(source: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def command(out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "pipelines/build_nsp.py", "--source", str(source), "--out", str(out), *FLAGS]
        return subprocess.run(
            line, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, **environment}, check=False
        )

    return command


def test_a_full_disk_stops_the_run_and_more_room_lets_it_go_on(
    small_disk: Path, undisturbed: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    out = small_disk / "out"
    stopped = run(out)
    assert stopped.returncode == 3, stopped.stderr
    assert "error: cannot write" in stopped.stderr
    assert "No space left on device" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert {row.outcome for row in ledger(out)} <= {"kept"}
    remount(small_disk, ROOMY)
    assert run(out).returncode == 0
    assert_same_dataset(undisturbed, out)
    assert_conserved(out)


def test_a_disk_that_may_not_be_written_stops_the_run_before_any_work(
    small_disk: Path, undisturbed: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    remount(small_disk, f"ro,{ROOMY}")
    stopped = run(small_disk / "out")
    assert stopped.returncode == 3
    assert "Read-only file system" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    remount(small_disk, f"rw,{ROOMY}")
    assert run(small_disk / "out").returncode == 0
    assert_same_dataset(undisturbed, small_disk / "out")


def test_a_full_scratch_disk_is_no_clips_fault(
    small_disk: Path, undisturbed: Path, tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (small_disk / "filler").write_bytes(bytes(550 << 10))
    stopped = run(tmp_path / "out", TMPDIR=str(small_disk), RAY_TMPDIR="/tmp")
    assert stopped.returncode == 3, stopped.stdout + stopped.stderr
    assert "set TMPDIR to a larger disk" in stopped.stderr
    assert ledger(tmp_path / "out") == []
    assert run(tmp_path / "out").returncode == 0
    assert_same_dataset(undisturbed, tmp_path / "out")
