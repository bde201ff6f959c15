"""Logging to Weights & Biases, offline: what is in its file is what was logged, also after a resume."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nextscene.common.errors import UsageError
from nextscene.training.metrics.log_file import read_metrics
from nextscene.training.metrics.logger import MetricsLogger
from nextscene.training.metrics.wandb_log import WandbLog, check_wandb

_BLOCK = 32 << 10
_FULL, _LAST = 1, 4


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def pieces(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file in the format of LevelDB's log, which W&B writes after 7 bytes of its own."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if _BLOCK - place % _BLOCK < 7:  # the rest of a block is too short for a header
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (_FULL, _LAST):
            yield whole
            whole = b""


def records(folder: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the id and the logged lines of each file that W&B has written, in order of time."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for file in sorted((folder / "wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        lines, name = [], ""
        for data in pieces(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                name = record.run.run_id
            if record.HasField("history"):
                items = record.history.item
                lines.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
        found.append((name, lines))
    return found


def log(folder: Path, after: int, steps: range) -> None:
    wandb = WandbLog("a-project", folder, "sft", {"optimizer.lr": 1.0, "mix": [{"name": "nsp"}]})
    logger = MetricsLogger(folder, after, wandb)
    for step in steps:
        logger.log("step", step, {"loss": 1 / step, "gradient_norm": float("nan")})
        logger.log("evaluation", step, {"heldout_loss": 2 / step})
    logger.close()


@pytest.mark.slow
def test_a_resumed_stage_logs_to_the_same_run_and_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log(tmp_path, 0, range(1, 4))
    log(tmp_path, 2, range(3, 5))
    assert capfd.readouterr() == ("", "")
    deadline = time.monotonic() + 60
    while not all(name for name, _ in records(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)  # W&B writes in a process of its own, which may be late on a busy machine
    (first, before), (second, after) = records(tmp_path)
    assert first == second != ""
    logged = [(line["step"], line["step/loss"]) for line in before + after if "step/loss" in line]
    assert logged == [(step, pytest.approx(1 / step)) for step in (1, 2, 3, 3, 4)]
    evaluated = [line["evaluation/heldout_loss"] for line in before if "evaluation/heldout_loss" in line]
    assert evaluated == pytest.approx([2.0, 1.0, 2 / 3])
    assert all("step/gradient_norm" not in line for line in before + after)
    assert [line["step"] for line in read_metrics(tmp_path) if line["event"] == "step"] == [1, 2, 3, 4]


def test_a_missing_package_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextscene.training.metrics.wandb_log.find_spec", lambda _: None)
    with pytest.raises(
        UsageError, match=r"`logging.wandb` a-project: the package wandb is not installed; install nextscene"
    ):
        check_wandb("a-project")


def test_a_missing_key_is_one_line_and_offline_none_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    check_wandb("a-project")
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(UsageError, match="no key for Weights & Biases; set WANDB_API_KEY, or WANDB_MODE=offline"):
        check_wandb("a-project")


def test_the_package_is_imported_only_if_it_is_used() -> None:
    code = "import sys; import nextscene.training.trainer; print('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
