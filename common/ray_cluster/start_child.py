"""A program that `ray_process.py` starts: it starts Ray, or tries an address, and says how that went.

The Ray that it started lives until the pipe is closed or the parent dies; then its processes and its folder go, too.
Whatever Ray prints, and even if it aborts its process, the command itself is not touched by it.
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
_MOST_LOOKS = 20
SERVERS = ("gcs_server", "raylet")
"""The processes without which there is no cluster."""


def main(descriptor: int, settings: Mapping[str, Any]) -> None:
    """Messages are JSON: `imported`, then `ready` with the cluster's address, or `failed` with what Ray raised."""
    line = Connection(descriptor)
    servers: list[psutil.Process] = []
    threading.Thread(target=_keep, args=(line, settings.get("_temp_dir"), servers), daemon=True).start()
    try:
        _reach(settings["address"])
        import ray

        _say(line, {"state": "imported"})
        ray.init(**settings, logging_level=logging.WARNING, log_to_driver=False)
        address = ray.get_runtime_context().gcs_address
    except Exception as error:  # noqa: BLE001 - whatever Ray raises is told, and sorted by the parent
        _say(line, {"state": "failed", "kind": type(error).__name__, "text": str(error), "cause": str(error.__cause__)})
    else:
        servers += [child for child in psutil.Process().children() if child.name() in SERVERS]
        _say(line, {"state": "ready", "address": address})
    threading.Event().wait()


def _reach(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


def _say(line: Connection, message: Mapping[str, str]) -> None:
    with suppress(OSError):  # the parent is gone, which `_keep` sees to
        line.send_bytes(json.dumps(message).encode())


def _keep(line: Connection, folder: str | None, servers: list[psutil.Process]) -> None:
    """The folder stays, for its logs, where a server died or the parent sends `keep` before it closes the pipe."""
    parent, keep = os.getppid(), False
    with suppress(EOFError, OSError):
        while os.getppid() == parent:
            if line.poll(_LOOK_SECONDS):
                keep = line.recv_bytes() == b"keep"
    keep = keep or not all(map(runs, servers))
    family = psutil.Process().children(recursive=True)
    if servers:  # else it is starting, and would not answer
        _shut_down()
    end_family(*family)
    if folder and keep:
        from nextscene.common.scratch import release_folder  # late: it imports much, and is seldom needed

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
    """Kill these processes and their children. They are stopped first, so that none starts another meanwhile."""
    known = set(family)
    for _ in range(_MOST_LOOKS):
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
    """Return whether it has not ended."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
