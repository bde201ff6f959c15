"""A sample of `python -m tests.clocks`, and the command on a machine with simulated clocks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.fence import LOCK
from nextscene.common.lease import Holder
from nextscene.common.process_identity import ProcessIdentity
from nextscene.common.storage import Storage
from tests.clocks.shim import VARIABLE, SharedClocks
from tests.command import SECONDS
from tests.support import REPOSITORY, captioned_spans


@pytest.mark.slow
def test_no_clock_lets_two_write_ends_a_healthy_run_or_blocks_for_long() -> None:
    command = [sys.executable, "-m", "tests.clocks", "--sample"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 0 and ", 0 faults" in ended.stdout, ended.stdout + ended.stderr


def test_a_command_that_is_kept_out_says_whom_it_waits_for_and_what_to_do(tmp_path: Path) -> None:
    """The clock of its machine is a hundred times as fast, and an hour ahead."""
    out = Storage.at(tmp_path / "out")
    elsewhere = ProcessIdentity("another-host", 7, "another-boot", "pid:[1]", "time:[1]", "9")
    out.write(LOCK, replace(Holder.me("theirs"), process=elsewhere).to_bytes())
    SharedClocks.make(tmp_path / "clocks", 100.0, time.monotonic(), wall=3600.0)
    source = captioned_spans(tmp_path, 1)
    flags = ["--source", str(source), "--out", out.uri, "--judge", "none", "--limits.lock-wait-seconds", "30"]
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "pipelines" / "build_nsp.py"), *flags],
        env=os.environ
        | {"PYTHONPATH": f"{REPOSITORY / 'tests' / 'clocks'}{os.pathsep}{REPOSITORY}"}
        | {VARIABLE: f"{tmp_path / 'clocks'}|here|boot-here|pid:[1]"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=REPOSITORY,
    )
    assert ended.returncode == 3, ended.stderr
    waits, stopped, goes_on = ended.stderr.splitlines()
    assert "another-host, process 7" in waits and "30 s" in waits
    assert "limits.lock_wait_seconds" in stopped
    assert "run the same command again" in goes_on
    assert [entry.path for entry in out.files(recursive=True)] == [LOCK]
