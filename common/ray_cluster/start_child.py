"""A program that `local_ray.py` starts: it starts Ray, or tries an address, and reports the result.

The Ray that it started lives until the pipe is closed or the parent dies; then its processes end, and its folder is
deleted. The command itself is not affected by what Ray prints, or if Ray aborts its process.

Tested in tests/common/ray_cluster/test_cluster.py.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_SHUTDOWN_SECONDS = 5.0
_MAX_ROUNDS = 20
SERVERS = ("gcs_server", "raylet")
"""The servers of a cluster: if one dies, the cluster is lost."""


def main(descriptor: int, settings: Mapping[str, Any]) -> None:
    """Start Ray or connect to a cluster, report the result, and wait to be ended.

    The messages are JSON: `imported`, then `ready` with the cluster's address, or `failed` with the error of Ray.
    """
    pipe = Connection(descriptor)
    servers: list[psutil.Process] = []
    threading.Thread(target=_clean_up, args=(pipe, settings.get("_temp_dir"), servers), daemon=True).start()
    try:
        _reach(settings["address"])
        import ray

        _send(pipe, {"state": "imported"})
        ray.init(**settings, logging_level=logging.WARNING, log_to_driver=False)
        address = ray.get_runtime_context().gcs_address
    except Exception as error:  # noqa: BLE001 - the parent classifies what Ray raises
        _send(
            pipe, {"state": "failed", "kind": type(error).__name__, "text": str(error), "cause": str(error.__cause__)}
        )
    else:
        servers += [child for child in psutil.Process().children() if child.name() in SERVERS]
        _send(pipe, {"state": "ready", "address": address})
    threading.Event().wait()


def _reach(address: str) -> None:
    """Raise OSError if no process listens there: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


def _send(pipe: Connection, message: Mapping[str, str]) -> None:
    with suppress(OSError):  # the parent is gone, which `_clean_up` handles
        pipe.send_bytes(json.dumps(message).encode())


def _clean_up(pipe: Connection, folder: str | None, servers: list[psutil.Process]) -> None:
    """Wait for the end of the parent, then end Ray and delete its folder.

    The folder is kept, for its logs, if a server died or the parent sends `keep` before it closes the pipe.
    """
    parent, keep = os.getppid(), False
    with suppress(EOFError, OSError):
        while os.getppid() == parent:
            if pipe.poll(_LOOK_SECONDS):
                keep = pipe.recv_bytes() == b"keep"
    keep = keep or not all(map(runs, servers))
    family = psutil.Process().children(recursive=True)
    if servers:  # otherwise it is starting, and would not answer
        _shut_down()
    end_family(*family)
    if folder and keep:
        from nextscene.common.scratch import release_folder  # late: a large import that is rarely needed

        release_folder(Path(folder))
    elif folder:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _shut_down() -> None:
    import ray

    thread = threading.Thread(target=ray.shutdown, daemon=True)
    thread.start()
    thread.join(_SHUTDOWN_SECONDS)


def end_family(*family: psutil.Process) -> None:
    """Kill these processes and their children. They are suspended first, so that none can start another."""
    known = set(family)
    for _ in range(_MAX_ROUNDS):
        for process in known:
            with suppress(psutil.Error):
                process.suspend()
        found = set(known)
        for process in known:
            with suppress(psutil.Error):
                found.update(process.children(recursive=True))
        if found == known:
            break
        known = found
    for process in known:
        with suppress(psutil.Error):
            process.kill()
    until = time.monotonic() + _SHUTDOWN_SECONDS
    while any(map(runs, known)) and time.monotonic() < until:
        time.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    """Return whether a process has not ended."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
