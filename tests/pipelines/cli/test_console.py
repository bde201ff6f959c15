"""What a command shows of texts that are not ours."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nextscene.pipelines.cli import console
from tests.hostile_text import HALF, STEERING
from tests.support import REPOSITORY


def test_a_warning_about_a_strangers_text_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.Logger("root")
    monkeypatch.setattr(logging, "root", root)
    console.log_to_stderr()
    (handler,) = root.handlers
    line = handler.format(logging.makeLogRecord({"msg": "the file %s is\nodd", "args": (f"{HALF}{STEERING}",)}))
    assert line == "the file \\ud83d\\x1b[31mred\\x1b[0m \\u202eback\\u202c \n\\x07 is\nodd"


def test_where_stderr_is_full_a_command_still_ends_with_its_code(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "pipelines/build_nsp.py", "--source", str(tmp_path / "a"), "--out", str(tmp_path / "out")],
            cwd=REPOSITORY,
            stderr=full,
            check=False,
        )
    assert ended.returncode == 2


@pytest.mark.parametrize("closed", ["terminal", "pipe"])
def test_progress_outlives_its_reader(closed: str, tmp_path: Path) -> None:
    """A run that nobody watches any more goes on: SIGHUP may be ignored, as under nohup, or mean "save and stop"."""
    reader, writer = os.openpty() if closed == "terminal" else os.pipe()
    os.close(reader)
    program = (
        "from nextscene.pipelines.cli.step_progress import StepProgress\n"
        "progress = StepProgress('sft')\n"
        "progress.begin(3, 0)\n"
        "progress.note('a line')\n"
        "progress.step(1, {'loss': 0.5, 'samples_per_second': 1.0})\n"
        "with progress.stopped_by_signals():\n"
        "    progress.stop('SIGHUP')\n"
        "open('done', 'w').close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"}
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, stderr=writer, env=environment, check=False
        )
    finally:
        os.close(writer)
    assert ended.returncode == 0 and (tmp_path / "done").exists()
