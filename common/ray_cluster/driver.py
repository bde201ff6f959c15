"""The driver process, which works on Ray for a run. `common.ray_cluster.supervisor` starts and watches it.

Ray ends the process that it is in when its servers are gone, and some of its calls wait without a limit. So it works in
this process; the run itself, which holds the lock and reports the end, is another one.

Usage: python driver.py DESCRIPTOR; the descriptor is its end of the pipe.

Tested in tests/common/ray_cluster/test_supervisor.py.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from nextscene.common.awake_clock import AwakeClock
from nextscene.common.errors import RunStopped
from nextscene.common.ray_cluster.cluster import connected
from nextscene.common.ray_cluster.messages import (
    Alive,
    ClusterAnswered,
    Connected,
    Ended,
    Logged,
    Moved,
    Printed,
    RayRequest,
    Stop,
)
from nextscene.common.ray_cluster.server_processes import servers_of

_ALIVE_EVERY_SECONDS = 1.0
_CLUSTER_EVERY_SECONDS = 2.0


class Driver:
    """The connection of a request to the supervisor: reports progress, and learns when to stop."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._stop_reason = ""
        self._moves = 0

    def check(self) -> None:
        """Raise RunStopped once the supervisor has asked to stop. Call it every moment."""
        self._moves += 1
        if self._stop_reason:
            raise RunStopped(self._stop_reason)

    def tick(self, *progress: Any) -> None:
        self.send(Moved(progress))

    def send(self, message: Any) -> None:
        with self._sending:
            self._pipe.send(message)

    def listen(self) -> None:
        """Obey the supervisor until it is gone; then end this process, and with it our Ray."""
        try:
            while True:
                message = self._pipe.recv()
                if isinstance(message, Stop):
                    self._stop_reason = message.reason
                else:
                    signal.raise_signal(signal.SIGINT)
        except (EOFError, OSError):
            os._exit(1)

    def report_alive(self) -> None:
        """Report every second that this process runs, and how long its main thread has waited in one call of Ray."""
        clock, pause = AwakeClock(), threading.Event()
        moves, since = -1, 0.0
        while not pause.wait(_ALIVE_EVERY_SECONDS):
            now = clock.seconds()
            if not self._moves or self._moves != moves or not _is_in_ray(_main_thread()):
                moves, since = self._moves, now
            self.send(Alive(now - since))

    def report_cluster(self) -> None:
        """Report each answer of the cluster. While it does not answer, this thread waits in Ray."""
        import ray

        me, pause = ray.get_runtime_context().get_node_id(), threading.Event()
        while not pause.wait(_CLUSTER_EVERY_SECONDS):
            with suppress(ray.exceptions.RayError, RuntimeError):  # the supervisor counts the seconds without an answer
                alive = [node["Alive"] for node in ray.nodes() if node["NodeID"] == me]
                self.send(ClusterAnswered(any(alive)))


def _main_thread() -> FrameType:
    return sys._current_frames()[threading.main_thread().ident or 0]


def _is_in_ray(frame: FrameType) -> bool:
    import ray

    return Path(frame.f_code.co_filename).is_relative_to(Path(ray.__file__).parent)


class _LogHandler(logging.Handler):
    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self._driver = driver

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info, record.exc_text = self.format(record), None, None, None
        self._driver.send(Logged(record))


class _Stream(io.TextIOBase):
    """A replacement of stdout or stderr whose lines the supervisor prints.

    Ray's native code, whose traces are not for the user, still writes to this process's own streams.
    """

    def __init__(self, driver: Driver, name: str) -> None:
        self._driver, self._name, self._unfinished = driver, name, ""

    def write(self, text: str) -> int:
        lines, newline, self._unfinished = (self._unfinished + text).rpartition("\n")
        if newline:
            self._driver.send(Printed(self._name, lines + newline))
        return len(text)


def _outcome(request: RayRequest, driver: Driver) -> Ended:
    try:
        return Ended(request.work(driver))
    except BaseException as error:  # noqa: BLE001 - the supervisor raises it
        return _failed(error)


def _failed(error: BaseException) -> Ended:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - its constructor may raise anything
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return Ended(error=error, traceback=traceback.format_exc())


def _start(target: Any) -> None:
    threading.Thread(target=target, name=target.__name__, daemon=True).start()


def main(descriptor: int) -> None:
    """Receive a request, do it, and end without Ray's shutdown, which may hang."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also if the command was started with SIGINT ignored
    pipe = Connection(descriptor)
    pipe.send_bytes(b"ready")
    request: RayRequest = pipe.recv()
    driver = Driver(pipe)
    logging.basicConfig(level=logging.WARNING, handlers=[_LogHandler(driver)])
    if request.training:
        sys.stdout, sys.stderr = _Stream(driver, "stdout"), _Stream(driver, "stderr")
    _start(driver.listen)
    _start(driver.report_alive)
    try:
        with connected(request.workers, request.address, request.training):
            import ray

            node = ray._private.worker._global_node
            servers = servers_of(Path(node.get_session_dir_path()).name, node.raylet_socket_name)
            driver.send(Connected(servers))
            _start(driver.report_cluster)
            driver.send(_outcome(request, driver))
    except BaseException as error:  # noqa: BLE001 - the supervisor raises it
        driver.send(_failed(error))
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
