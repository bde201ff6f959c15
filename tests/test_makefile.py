"""The Makefile: the set-up prints one line for each step, with what it installs, and otherwise only errors of pip."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import REPOSITORY

PIP = """#!/bin/sh
case " $* " in *" -qq "*) ;; *) echo "WARNING: something that pip says" >&2 ;; esac
[ ! -e {folder}/fails ] || { echo "ERROR: no matching distribution" >&2; exit 1; }
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Return an environment whose Python is a script in place of pip."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PIP.replace("{folder}", str(tmp_path)))
    python.chmod(0o755)
    return tmp_path / "venv"


def make(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_each_step_of_the_set_up_says_what_it_installs_its_size_and_its_time(environment: Path) -> None:
    done = make(f"VENV={environment}", environment / "test")
    assert (done.returncode, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert str(environment) in line and "packages" in line and "GB" in line and "minute" in line
    assert make(f"VENV={environment}", environment / "test").stderr == ""


def test_an_error_of_pip_is_shown(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "fails").touch()
    done = make(f"VENV={environment}", environment / "base")
    assert done.returncode == 2
    assert "ERROR: no matching distribution" in done.stderr
    assert not (environment / "base").exists()


def test_a_python_that_is_too_old_is_reported_before_anything_is_made(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\nexec python3 -S -c "import sys; sys.version_info = (3, 10); exec(sys.argv[1])" "$2"\n'
    )
    python.chmod(0o755)
    done = make(f"VENV={tmp_path / 'venv'}", f"PYTHON={python}", tmp_path / "venv" / "base")
    assert done.returncode == 2
    assert f"error: {python} is older than 3.11; name a newer one: make PYTHON=" in done.stderr
    assert list(tmp_path.iterdir()) == [python]


def test_lint_runs_no_test_and_test_runs_lint_first(environment: Path) -> None:
    lint, tests = (make("-n", f"VENV={environment}", target).stdout for target in ("lint", "test"))
    checks = ["-m ruff format --check", "-m ruff check", "-m mypy"]
    assert [check for check in checks if check in lint] == checks
    assert "-m pytest" not in lint
    assert tests.index("-m mypy") < tests.index("-m pytest")


def test_test_fast_leaves_the_slow_tests_out(environment: Path) -> None:
    done = make("-n", f"VENV={environment}", "test-fast").stdout
    assert "-m pytest" in done and '-m "not slow"' in done
    assert "-m mypy" not in done


@pytest.mark.parametrize(
    ("words", "source", "kind"),
    [
        ((), "data/shapes/clips.csv", "shapes"),
        (("WORLD=film",), "data/film/shots.csv", "film"),
        (("JUDGE=none",), "data/film/shots.csv", "film"),
        (("SOURCE=own.csv",), "own.csv", "film"),
    ],
)
def test_train_takes_the_drawn_world_unless_another_dataset_is_named(
    environment: Path, tmp_path: Path, words: tuple[str, ...], source: str, kind: str
) -> None:
    done = make("-n", f"VENV={environment}", "train", f"OUT={tmp_path / 'out'}", *words)
    assert done.returncode == 0, done.stderr
    assert f"--kind {kind}" in done.stdout and f"--source {source} " in done.stdout


@pytest.mark.parametrize("word", ["JUDGE=claude", "SOURCE=own.csv"])
def test_the_drawn_world_has_a_source_and_a_judge_of_its_own(environment: Path, word: str) -> None:
    done = make("-n", f"VENV={environment}", "train", "WORLD=shapes", word)
    assert done.returncode == 2 and "leave JUDGE and SOURCE out" in done.stderr
