"""What a command shows of texts that are not ours."""

from __future__ import annotations

import logging
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
