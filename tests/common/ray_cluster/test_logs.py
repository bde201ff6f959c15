"""Where Ray does not start, the line quotes what its logs say."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from nextscene.common.errors import RunStopped
from nextscene.common.ray_cluster.local_ray import own_ray
from nextscene.common.ray_cluster.logs import last_error_line
from nextscene.common.ray_cluster.start_errors import StartFault, start_error

TRACE = """Traceback (most recent call last):
  File "x.py", line 3, in <module>
    state.__doc__ += ""
TypeError: unsupported operand type(s) for +=: 'NoneType' and 'str'
"""
SERVER = "[raylet] Check failed: agent died\n*** StackTrace Information ***\n/x/raylet(+0x27ba35) [0x55] main\n\n"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    logs = tmp_path / "session_latest" / "logs"
    logs.mkdir(parents=True)
    return logs


def test_what_was_raised_is_quoted_from_the_log_of_whoever_raised_it(tmp_path: Path, logs: Path) -> None:
    (tmp_path / "ray.log").write_text("")
    (logs / "raylet.err").write_text(SERVER)
    (logs / "dashboard_agent.err").write_text(TRACE)
    assert last_error_line(tmp_path) == "TypeError: unsupported operand type(s) for +=: 'NoneType' and 'str'"
    said = str(start_error(StartFault("Exception", "timed out"), "/tmp/x", last_error_line(tmp_path)))
    assert "timed out; its logs are in /tmp/x: TypeError: unsupported" in said and "\n" not in said


def test_ray_log_goes_first_and_its_stack_traces_are_passed_over(tmp_path: Path, logs: Path) -> None:
    (logs / "dashboard_agent.err").write_text(TRACE)
    (tmp_path / "ray.log").write_text(
        "ImportError: no\n[raylet] Check failed: agent died\n/x/raylet(+0x2) [0x5] main\n"
    )
    assert last_error_line(tmp_path) == "ImportError: no"


def test_without_an_exception_the_last_line_of_ray_log_is_quoted(tmp_path: Path, logs: Path) -> None:
    (tmp_path / "ray.log").write_text("starting\n" + SERVER)
    assert last_error_line(tmp_path) == "[raylet] Check failed: agent died"


def test_the_quotation_is_bounded_and_cannot_steer_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "ray.log").write_bytes(b"x\n" * 100_000 + b"OSError: \x1b[31m\xff" + b"y" * 5000)
    said = last_error_line(tmp_path)
    assert len(said) <= 300 and "\\x1b[31m" in said and "\x1b" not in said


def test_without_logs_nothing_is_quoted(tmp_path: Path) -> None:
    assert last_error_line(tmp_path) == ""


@pytest.fixture
def _small_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("_small_files")
def test_a_limit_on_files_is_told_before_ray_dies_of_it() -> None:
    with (
        pytest.raises(RunStopped, match=r"files of 100 MB, and this shell allows 2.0 MB; raise that by ulimit"),
        own_ray(1),
    ):
        pass
