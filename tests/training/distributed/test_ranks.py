"""Ranks: each has its number and the caller's environment; the first that fails is told, and none is left behind."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.training.ranks import RankFailed, run

pytestmark = pytest.mark.slow


def test_each_rank_returns_what_it_saw_of_the_others(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKED", "here")
    seen = run(_sum, 3, torch.arange(2))
    assert [total.tolist() for total, *_ in seen] == [[3, 6]] * 3
    assert [rest for _, *rest in seen] == [["here", str(scratch), 1]] * 3
    assert list(scratch.iterdir()) == []


def _sum(rank: int, world: int, values: torch.Tensor) -> tuple[torch.Tensor, str, str, int]:
    total = values + rank
    dist.all_reduce(total)
    return total, os.environ["ASKED"], tempfile.gettempdir(), torch.get_num_threads()


def test_the_first_failure_is_raised_while_others_wait_for_it(tmp_path: Path) -> None:
    with pytest.raises(RankFailed, match=r"rank 1: Traceback[\s\S]*in _fail[\s\S]*ZeroDivisionError"):
        run(_fail, 2, tmp_path)
    assert not _alive(tmp_path)


def _fail(rank: int, world: int, pids: Path) -> None:
    Path(pids, str(os.getpid())).touch()
    dist.barrier()
    if rank == 1:
        1 // 0  # noqa: B018
    time.sleep(3600)


def test_a_rank_that_dies_is_told(tmp_path: Path) -> None:
    with pytest.raises(RankFailed, match="rank 0: no result, exit code 7"):
        run(_die, 2, tmp_path)
    assert not _alive(tmp_path)


def _die(rank: int, world: int, pids: Path) -> None:
    Path(pids, str(os.getpid())).touch()
    dist.barrier()
    if rank == 0:
        os._exit(7)
    time.sleep(3600)


def test_a_rank_that_hangs_is_ended_and_says_where(tmp_path: Path) -> None:
    with pytest.raises(RankFailed, match=r"rank 0: no result, exit code 1[\s\S]*Timeout[\s\S]*in _hang"):
        run(_hang, 1, tmp_path, limit=1.0)
    assert not _alive(tmp_path)


def _hang(rank: int, world: int, pids: Path) -> None:
    Path(pids, str(os.getpid())).touch()
    time.sleep(3600)


def _alive(pids: Path) -> list[str]:
    return [path.name for path in pids.iterdir() if Path("/proc", path.name).exists()]
