"""A function that several processes run at once, as the ranks of one group that speaks gloo."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.training.preload"])
_environment = dict(os.environ)


class RankFailed(Exception):
    """The first rank that failed, and where it was."""


class _Task(NamedTuple):
    """`call` is a function and its arguments. Pickled: tensors would else be handed over as shared memory."""

    call: bytes
    world: int
    environment: dict[str, str]
    folder: Path
    limit: float

    def trace(self, rank: int) -> Path:
        """Where it writes where it was when its time was up."""
        return self.folder / f"{rank}.txt"


def run(function: Callable[..., Any], world: int, *arguments: Any, limit: float = 60.0) -> list[Any]:
    """[world]: what `function(rank, world, *arguments)`, a function of a module, returned in each process.

    The ranks have the environment of the caller. Raises RankFailed as soon as one fails, or dies, or is not done within
    `limit` seconds. No process is left behind.
    """
    _have_forkserver()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as ends:
        task = _Task(pickle.dumps((function, arguments)), world, dict(os.environ), Path(folder), limit)
        return _results(task, [_start(rank, task, ends) for rank in range(world)])


def _have_forkserver() -> None:
    """It outlives the test that starts it: it and its socket must know nothing of that test's TMPDIR."""
    with patch.dict(os.environ, _environment, clear=True), patch.object(tempfile, "tempdir", None):
        ensure_running()


def _start(rank: int, task: _Task, ends: ExitStack) -> tuple[BaseProcess, Connection]:
    ours, theirs = _context.Pipe(duplex=False)
    process = _context.Process(target=_rank, args=(rank, task, theirs))
    process.start()
    theirs.close()
    ends.callback(ours.close)
    ends.callback(process.join)
    ends.callback(process.kill)
    return process, ours


def _results(task: _Task, ranks: list[tuple[BaseProcess, Connection]]) -> list[Any]:
    results: dict[int, Any] = {}
    while len(results) < task.world:
        waiting: dict[Any, int] = {pipe: rank for rank, (_, pipe) in enumerate(ranks) if rank not in results}
        for ready in wait(list(waiting)):
            rank = waiting[ready]
            process, pipe = ranks[rank]
            try:
                failure, results[rank] = pickle.loads(pipe.recv_bytes())
            except EOFError:
                process.join()
                failure = f"no result, exit code {process.exitcode}\n{task.trace(rank).read_text()}"
            if failure:
                raise RankFailed(f"rank {rank}: {failure}")
    return [results[rank] for rank in range(task.world)]


def _rank(rank: int, task: _Task, pipe: Connection) -> None:
    trace = task.trace(rank).open("w")
    faulthandler.dump_traceback_later(task.limit, exit=True, file=trace)
    os.environ.clear()
    os.environ.update(task.environment, GLOO_SOCKET_IFNAME="lo")
    tempfile.tempdir = None
    torch.set_num_threads(1)
    try:
        function, arguments = pickle.loads(task.call)
        store, patience = (task.folder / "store").as_uri(), timedelta(seconds=task.limit)
        dist.init_process_group("gloo", store, timeout=patience, world_size=task.world, rank=rank)
        answer = pickle.dumps((None, function(rank, task.world, *arguments)))
    except BaseException:  # noqa: BLE001 – the caller shall see it
        answer = pickle.dumps((traceback.format_exc(), None))
    pipe.send_bytes(answer)
