"""The real command as a user starts it: in its own process group, with output in files, and all children tracked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support import REPOSITORY

SECONDS = 300.0
"""The time after which a test considers a command hung: many times what a command needs."""

SMALL_FLAGS = ("--judge", "none", "--test", "0", "--unit-size", "2", "--units-per-shard", "2")
"""The flags with the same settings as `tests.support.SMALL`."""


def fault_injection(**settings: str) -> dict[str, str]:
    """Return the environment in which fakes/fault_injection breaks a command from within, as that module explains."""
    names = {f"FAULT_{name}": value for name, value in settings.items()}
    return {"PYTHONPATH": f"{REPOSITORY / 'tests' / 'fakes' / 'fault_injection'}{os.pathsep}{REPOSITORY}", **names}


_FROM_RAY = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_JOB_CONFIG_JSON_ENV_VAR", "PYTEST_CURRENT_TEST")


@dataclass(frozen=True)
class Ended:
    """The exit code, output and duration of a command that has ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def error(self) -> str:
        """The error line on stderr. Asserts that there is exactly one, and no traceback."""
        assert "Traceback" not in self.stderr, self.stderr
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.stderr
        return lines[0]


class Command:
    """A command that was started."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], folder: Path, cwd: Path) -> None:
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        self._begun = time.monotonic()
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._child.pid
        self._family: set[psutil.Process] = set()
        self._watched = threading.Thread(target=self._watch, daemon=True)
        self._watched.start()

    def wait(self, seconds: float = SECONDS) -> Ended:
        code = self._child.wait(seconds)
        self._watched.join()
        said = [path.read_text("utf-8", "replace") for path in (self._stdout, self._stderr)]
        return Ended(code, *said, time.monotonic() - self._begun)

    @property
    def stderr(self) -> str:
        """What it has written so far."""
        return self._stderr.read_text("utf-8", "replace")

    def send(self, signum: int) -> None:
        """Send a signal to the command only, as `kill` does."""
        self._child.send_signal(signum)

    def send_group(self, signum: int) -> None:
        """Send a signal to its process group, as a terminal does at Ctrl-C."""
        os.killpg(self.pid, signum)

    def until(self, reached: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Wait until `reached` returns True. Raise AssertionError if the run ends before, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not reached():
            if self._child.poll() is not None:
                ended = self.wait()
                raise AssertionError(f"the command ended with {ended.code} too early:\n{ended.stdout}\n{ended.stderr}")
            assert time.monotonic() < deadline, "the moment did not come"
            time.sleep(0.02)

    def is_running(self) -> bool:
        return self._child.poll() is None

    def runs(self, program: str) -> bool:
        """Return whether one of its running processes has `program` in its command line."""
        return any(program in _described(process) for process in list(self._family))

    def command_lines(self) -> list[str]:
        """Return the command lines of its processes, each after the process number."""
        return [_described(process, 10_000) for process in list(self._family)]

    def listening(self) -> list[str]:
        """Return the address of each TCP socket on which it, or a process that it started, now listens."""
        found = []
        for process in [psutil.Process(self.pid), *self._family]:
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                sockets = process.net_connections(kind="tcp")
                found += [one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN]
        return found

    def left_behind(self, patience: float = 15.0) -> list[str]:
        """Return the processes that it started, at any depth, and that still run after `patience` seconds."""
        deadline = time.monotonic() + patience
        while (alive := [process for process in self._family if _runs(process)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [_described(process) for process in alive]

    def end(self) -> None:
        """Kill the command and all processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()
        self._watched.join()
        for process in self._family:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _watch(self) -> None:
        with suppress(psutil.NoSuchProcess):
            me = psutil.Process(self.pid)
            while self._child.poll() is None:
                self._family.update(me.children(recursive=True))
                time.sleep(0.1)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _described(process: psutil.Process, most: int = 120) -> str:
    with suppress(psutil.NoSuchProcess):
        return f"{process.pid} {' '.join(process.cmdline())[:most]}"
    return str(process.pid)


@dataclass(frozen=True)
class Place:
    """A home and a temporary folder for commands. The path is short, as Ray's sockets need."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def ray(self) -> Path:
        return self.root / "ray"

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a user who has activated this Python's environment, with `extra` added.

        An empty value removes a variable.
        """
        env = {name: value for name, value in os.environ.items() if name not in _FROM_RAY}
        python = str(Path(sys.executable).parent)
        env |= {"HOME": str(self.home), "RAY_TMPDIR": str(self.root), "TMPDIR": str(self.root / "tmp")}
        env |= {"PATH": f"{python}:{env.get('PATH', '')}"} | dict(extra or {})
        return {name: value for name, value in env.items() if value}

    @contextmanager
    def start(self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path = REPOSITORY) -> Iterator[Command]:
        """Start any program, and kill it at the end of the block."""
        folder = Path(tempfile.mkdtemp(dir=self.root))
        command = Command(arguments, self.env(env), folder, cwd)
        try:
            yield command
        finally:
            command.end()

    @contextmanager
    def start_build(self, *flags: str, env: Mapping[str, str] | None = None) -> Iterator[Command]:
        with self.start(sys.executable, "pipelines/build_nsp.py", *flags, env=env) as command:
            yield command

    def build(self, *flags: str, env: Mapping[str, str] | None = None) -> Ended:
        """Run the build command to its end, and assert that no process that it started outlives it."""
        with self.start_build(*flags, env=env) as command:
            ended = command.wait()
            assert command.left_behind() == []
        return ended


@contextmanager
def place() -> Iterator[Place]:
    root = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    try:
        for folder in ("home", "tmp"):
            (root / folder).mkdir()
        yield Place(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
