"""The supervisor of the driver process: any failure of Ray is noticed within a time limit, and explained.

Seconds of silence count only while this process itself was running.
"""

from __future__ import annotations

import logging
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

from nextscene.common.awake_clock import AwakeClock
from nextscene.common.child_server import ChildServer
from nextscene.common.environment import own_python_environment
from nextscene.common.errors import RayFailed, RunStopped
from nextscene.common.ray_cluster import driver
from nextscene.common.ray_cluster.messages import (
    Alive,
    ClusterAnswered,
    Connected,
    Ended,
    Leave,
    Logged,
    Moved,
    Printed,
    RayRequest,
    Stop,
)
from nextscene.common.ray_cluster.server_processes import PAUSED, RayProcesses, state_of
from nextscene.common.ray_cluster.start_child import end_family

_POLL_SECONDS = 0.5
_PAUSE_SECONDS = 0.1
_START_SECONDS = 240.0  # two tries, each with limits of its own
_CLUSTER_SILENT_SECONDS = 45.0  # after 60 Ray ends the driver process
_IN_RAY_SECONDS = 60.0
_DRIVER_SILENT_SECONDS = 45.0
_LEAVE_SECONDS = 30.0  # longer than the driver waits for its Ray to end
_CHILDREN_SECONDS = 20.0
_SETTLE_SECONDS = 5.0
"""Time until the death that explains a failure of Ray can be seen."""

_KILLED = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a driver process that was ended by others than Ray. Ray's servers then end with it."""


def supervise(request: RayRequest, tick: Callable[..., None], check: Callable[[], None]) -> Any:
    """Do the request in a process of its own, and return its result.

    `check` is called every moment; a RunStopped that it raises stops the work in order. Raise what the work raised;
    RunStopped, with its cause, if Ray or that process fails or does not answer.
    """
    supervisor = _Supervisor(request, tick)
    try:
        return supervisor.watch(check)
    finally:
        supervisor.end()


class _Supervisor:
    def __init__(self, request: RayRequest, tick: Callable[..., None]) -> None:
        self._stop_seconds = request.stop_seconds
        self._tick = tick
        self._clock = AwakeClock()
        try:
            self._driver = ChildServer(driver.__file__, environment=own_python_environment())
        except OSError as error:
            raise RunStopped(f"the process that works on Ray cannot be started: {error}") from error
        self._servers = RayProcesses()
        self._ended: Ended | None = None
        self._is_connected = False
        self._stop: RunStopped | None = None
        self._stop_at = 0.0
        self._begun = self._heard = self._cluster_heard = self._clock.seconds()
        self._in_ray_seconds = 0.0
        self._node_is_alive = True
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._listening = threading.Thread(target=self._listen, name="ray driver", daemon=True)
        self._listening.start()
        self._send(request)

    def watch(self, check: Callable[[], None]) -> Any:
        while self._ended is None:
            try:
                self._receive()
                if self._ended is None and self._fault():
                    self._check_again()
            except EOFError:
                raise RunStopped(self._death()) from None
            try:
                check()
            except RunStopped as stop:
                self._ask_to_stop(stop)
        error = self._ended.error
        if error is None:
            return self._ended.result
        if isinstance(error, RayFailed):
            raise RunStopped(self._cause_within(_SETTLE_SECONDS) or str(error)) from error
        error.add_note(self._ended.traceback)
        raise error

    def _check_again(self) -> None:
        """Raise RunStopped for a fault after all messages are received: the work may have ended before Ray did."""
        while self._receive() or (self._ended is None and self._driver.pipe.poll()):
            pass
        if self._ended is None and (fault := self._fault()):
            raise RunStopped(fault)

    def end(self) -> None:
        """End the driver process and all processes that it started: in order if that takes only some seconds."""
        if self._ended is None:
            self._send(Leave())
        until = self._clock.seconds() + _LEAVE_SECONDS
        try:
            while self._driver.is_running() and self._clock.seconds() < until:
                try:
                    self._receive()
                except EOFError:
                    time.sleep(_PAUSE_SECONDS)
        finally:
            children = psutil.Process(self._driver.pid).children() if self._driver.is_running() else []
            self._driver.kill()
            self._listening.join(_PAUSE_SECONDS)
            self._driver.end()
            _, left = psutil.wait_procs(children, _CHILDREN_SECONDS)  # each ends its own children
            end_family(*left)

    # ---- messages of the driver -----------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Receive in a thread: it waits for the rest of a message if the driver is suspended, and no signal interrupts
        it.
        """
        try:
            while True:
                self._messages.put(self._driver.pipe.recv())
        except (EOFError, OSError):
            self._messages.put(None)

    def _receive(self) -> bool:
        """Handle a message that arrives within a moment; return whether more may come.

        Raise EOFError once the driver process has died.
        """
        try:
            message = self._messages.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return False
        if message is None:
            self._messages.put(None)  # for the next call
            raise EOFError
        now = self._heard = self._clock.seconds()
        match message:
            case Moved():
                self._tick(*message.progress)
            case Alive():
                self._in_ray_seconds = message.in_ray_seconds
            case ClusterAnswered():
                self._cluster_heard, self._node_is_alive = now, message.node_is_alive
            case Connected():
                self._is_connected, self._cluster_heard = True, now
                self._servers = RayProcesses(message.processes)
            case Logged():
                logging.getLogger(message.record.name).handle(message.record)
            case Printed():
                with suppress(OSError):  # the reader has closed the stream
                    print(message.lines, end="", file=getattr(sys, message.stream), flush=True)
            case Ended():
                self._ended = message
                return False
        return True

    def _send(self, message: Any) -> None:
        with suppress(OSError):  # it has died, which the next poll finds
            self._driver.pipe.send(message)

    def _ask_to_stop(self, stop: RunStopped) -> None:
        if self._stop is None:
            self._stop, self._stop_at = stop, self._clock.seconds()
            self._send(Stop(str(stop)))

    # ---- faults -------------------------------------------------------------------------------------------

    def _fault(self) -> str:
        """Return why the work cannot continue, or "" if it can."""
        now = self._clock.seconds()
        self._servers.poll()
        if self._servers.server_died:
            return self._servers.cause()
        if not self._node_is_alive:
            cause = self._servers.cause() or "its raylet did not answer, or the network between them failed"
            return f"Ray's cluster has given up the node of this machine; {cause}"
        if self._stop and now - self._stop_at > self._stop_seconds:
            return f"{self._stop}; what was under way did not end within {self._stop_seconds:.0f} s"
        for what, seconds, limit in self._silences(now):
            if seconds > limit:
                cause = self._servers.cause()
                return f"{what} (waited {limit:.0f} s)" + (f"; {cause}" if cause else "")
        return ""

    def _silences(self, now: float) -> list[tuple[str, float, float]]:
        """Return each part that may be silent: its message, the seconds of silence, and the limit."""
        if not self._is_connected:
            return [("Ray does not start", now - self._begun, _START_SECONDS)]
        driver = f"the process that works on Ray ({self._driver.pid})"
        how = "is paused" if state_of(self._driver.pid) == PAUSED else "does not answer"
        return [
            (f"{driver} {how}", now - self._heard, _DRIVER_SILENT_SECONDS),
            ("Ray's GCS server does not answer", self._heard - self._cluster_heard, _CLUSTER_SILENT_SECONDS),
            ("Ray does not answer on this machine", self._in_ray_seconds, _IN_RAY_SECONDS),
        ]

    def _death(self) -> str:
        code = self._driver.wait()
        cause = "" if code in _KILLED else self._cause_within(_SETTLE_SECONDS)
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        return cause or f"the process that works on Ray ended {how}{self._driver.last_stderr_line()}"

    def _cause_within(self, seconds: float) -> str:
        until = self._clock.seconds() + seconds
        while not (cause := self._servers.cause()) and self._clock.seconds() < until:
            time.sleep(_PAUSE_SECONDS)
        return cause
