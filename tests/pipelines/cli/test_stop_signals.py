"""Signals: every command ends in order, by 130 for SIGINT and 3 for the others, whatever it is doing at that moment."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click
import pytest
from click.testing import CliRunner

from nextscene.common.errors import SourceGone
from nextscene.common.filesystem import StorageFault, Unreachable
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from tests.command import place
from tests.support import REPOSITORY

CODES = {signal.SIGINT: 130, signal.SIGTERM: 3, signal.SIGHUP: 3, signal.SIGUSR1: 3}
ENTRIES = {
    "build_nsp": ("join_locations", ["--out", "o"]),
    "train": ("chosen", ["--stage", "sft", "--data", "d", "--out", "o", "--qwen", "q", "--ltx", "l"]),
    "generate": ("_texts", ["--out", "o"]),
    "evaluate": ("check_out", ["--out", "o"]),
    "encode_latents": ("_encode", ["--data", "d", "--ltx", "."]),
    "show": ("open_out", ["o"]),
    "report": ("open_out", ["o"]),
    "make_tiny": ("_make", ["--data", "d", "--out", "o"]),
    "fetch_film": ("check_free", ["o"]),
}
"""Of each command what it calls first, and the least that it must be given."""


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[int, FrameType | None], None]]:
    """Who answers signals before and after a command."""

    def answer(number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"no command answers {signal.Signals(number).name}")

    monkeypatch.chdir(tmp_path)
    before = {number: signal.signal(number, answer) for number in CODES}
    yield answer
    assert {number: signal.getsignal(number) for number in CODES} == dict.fromkeys(CODES, answer)
    for number, handler in before.items():
        signal.signal(number, handler)


def run(command: Callable[[], None]) -> tuple[int, str]:
    """Exit code and stderr of a command that does this."""
    result = CliRunner().invoke(click.command()(handle_errors(GoOn("all is kept", "continue"))(command)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stderr


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("name", ENTRIES)
def test_every_command_ends_with_a_line_and_the_code_of_the_signal(
    name: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"nextscene.pipelines.{name}")
    first, arguments = ENTRIES[name]
    monkeypatch.setattr(module, first, lambda *_: signal.raise_signal(number))
    result = CliRunner().invoke(module.main, arguments)
    assert (result.exit_code, result.stdout) == (CODES[number], ""), result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: interrupted; " if number == signal.SIGINT else f"error: stopped by {number.name}; ")
    assert "again" in line or "continues" in line
    assert f"{CODES[number]} " in module.main.help.partition("Exit codes")[2]


@pytest.mark.parametrize("number", CODES)
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(
    number: signal.Signals, nobody: Callable[[int, FrameType | None], None]
) -> None:
    signal.signal(number, signal.SIG_IGN)
    code, said = run(lambda: signal.raise_signal(number))
    assert signal.signal(number, nobody) == signal.SIG_IGN
    assert (code, said) == (0, "")


@pytest.mark.parametrize("second", [number for number in CODES if number != signal.SIGINT])
def test_a_second_signal_leaves_the_end_in_order(second: signal.Signals) -> None:
    done = []

    def command() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(second)
            done.append("tidied")

    assert run(command) == (3, "error: stopped by SIGTERM; all is kept; continue\n")
    assert done == ["tidied"]


def test_a_second_interrupt_hurries_the_end_and_the_first_decides_the_code() -> None:
    def command() -> None:
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it waited for the end")

    assert run(command) == (3, "error: stopped by SIGHUP; all is kept; continue\n")


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (StorageFault("the disk is full"), "\nAll is kept; once that is mended, continue.\n"),
        (Unreachable("cannot reach s3://nothing/x; check its name"), "\n"),
        (SourceGone("it is not there; name its new place", "x"), "\n"),
    ],
)
def test_the_same_command_is_advised_only_where_it_continues(error: Exception, kept: str) -> None:
    def command() -> None:
        raise error

    assert run(command) == (3, f"error: {error}{kept}")


def test_a_signal_that_other_code_has_swallowed_is_not_the_last() -> None:
    def command() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:  # noqa: BLE001 - as there is code that does
            done.append("swallowed")
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the second signal was passed over")

    done: list[str] = []
    assert run(command)[0] == 3
    assert done == ["swallowed"]


def test_a_signal_at_any_moment_of_a_commands_end_is_answered_in_order() -> None:
    """One is sent at each instruction of the function that begins and ends a command."""

    def command() -> None:
        begun.append("begun")

    def injected(at: int) -> int:
        """How many instructions there were."""
        count = 0

        def trace(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal count
            if frame.f_code.co_name == "run" and frame.f_code.co_filename.endswith("exit_codes.py"):
                frame.f_trace_opcodes = True
                if event == "opcode" and signal.getsignal(signal.SIGTERM) != nobody_before:
                    count += 1
                    if count == at:
                        signal.raise_signal(signal.SIGTERM)
            return trace

        sys.settrace(trace)
        try:
            handle_errors(GoOn("all is kept"))(command)()
        except SystemExit as end:
            codes.add(end.code)
        finally:
            sys.settrace(None)
        return count

    begun: list[str] = []
    codes: set[object] = set()
    nobody_before = signal.getsignal(signal.SIGTERM)
    moments = injected(0)
    assert moments > 20
    for at in range(1, moments + 1):
        try:
            injected(at)
        except SystemExit as end:
            codes.add(end.code)
    assert codes <= {3}


def test_a_forked_child_leaves_signals_to_its_parent() -> None:
    def command() -> None:
        child = os.fork()
        if not child:
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                signal.raise_signal(number)
            os._exit(7 if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL else 8)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    ended: list[int] = []
    assert run(command) == (0, "")
    assert ended == [7]


# ---- before a command begins, and after ----------------------------------------------------------------------------


def python(*arguments: str, path: Path | None = None, ignored: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python, with modules of `path` before all others, and signals of these names ignored as by `nohup`."""
    shell = f"trap '' {ignored}; " if ignored else ""
    return subprocess.run(
        ["/bin/sh", "-c", f'{shell}exec "$0" "$@"', sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(path or "")},
    )


def script(name: str) -> str:
    return str(REPOSITORY / "pipelines" / f"{name}.py")


@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_packages_are_imported_ends_the_command_with_a_line(
    number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "click.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(60)\n")
    ended = python(script("fetch_film"), path=tmp_path)
    word = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
    assert (ended.returncode, ended.stderr) == (CODES[number], f"error: {word}; nothing was begun\n")


def test_what_nohup_ignores_is_ignored_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\nos._exit(9)\n")
    ended = python(script("fetch_film"), path=tmp_path, ignored="HUP INT")
    assert (ended.returncode, ended.stderr) == (9, "")


@pytest.mark.parametrize("name", ENTRIES)
def test_a_python_without_the_packages_says_which_one_it_lacks_and_what_to_do(name: str, tmp_path: Path) -> None:
    ended = python("-I", "-S", script(name))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {sys.executable} has no package ")
    assert "activate" in line or "pip install" in line


def test_a_python_that_is_too_old_says_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 10, 2, 'final', 0)\n")
    ended = python(script("build_nsp"), path=tmp_path)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {sys.executable} is Python 3.10, and 3.11 or newer is needed; ")


AT_EXIT = """
import threading, time, click
from pathlib import Path
from nextscene.pipelines.cli.stop_signals import STOPS
STOPS.install()
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors

def work():
    while not Path("go").exists():
        time.sleep(0.01)

@click.command()
@handle_errors(GoOn("all is kept"))
def main():
    threading.Thread(target=work).start()

threading._register_atexit(lambda: Path("exiting").touch())
main()
"""


@pytest.mark.parametrize(("numbers", "code"), [([signal.SIGTERM, signal.SIGHUP], 0), ([signal.SIGINT], 130)])
def test_a_signal_while_threads_are_joined_changes_nothing_or_ends_the_process(
    numbers: list[signal.Signals], code: int, tmp_path: Path
) -> None:
    env = {"PYTHONPATH": str(REPOSITORY)}
    with place() as here, here.start(sys.executable, "-c", AT_EXIT, env=env, cwd=tmp_path) as command:
        command.until((tmp_path / "exiting").exists)
        for number in numbers:
            command.send(number)
        if code == 0:
            (tmp_path / "go").touch()
        ended = command.wait()
    assert (ended.code, ended.stderr) == (code, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_repeated_signal_while_python_takes_itself_apart_changes_nothing(number: signal.Signals) -> None:
    code = f"""
import os, sys
from nextscene.pipelines.cli.stop_signals import STOPS
STOPS.install()
STOPS.begin()
STOPS.end()
class Late:  # deleted with the module, after Python has reset the handlers
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {int(number)})
late = Late()
sys.exit(3)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert (ended.returncode, ended.stderr) == (3, "")
