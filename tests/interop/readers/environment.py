"""Environments of other people's readers: each made once from its pinned list, and kept beside the checkout's own."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY

HERE = Path(__file__).parent
ENVIRONMENTS = REPOSITORY / ".venv-interop"
INSTALL_SECONDS = 1200
READ_SECONDS = 120


def read(environment: str, script: str, dataset: Path, scratch: Path) -> Any:
    """What a script here finds in a dataset, run in an environment of its reader, with all caches below `scratch`."""
    return last_line(run(interpreter(environment), HERE / script, dataset, scratch=scratch))


def run(*command: Path | str, scratch: Path) -> str:
    """The output of a reader's program, which must end well."""
    caches = ("HOME", "HF_HOME", "WIDS_CACHE", "CROISSANT_CACHE", "TMPDIR")
    places = {name: str(scratch / name.lower()) for name in caches}
    for place in places.values():
        Path(place).mkdir(exist_ok=True)
    env = {"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", **places}
    ended = subprocess.run(
        list(map(str, command)), env=env, cwd=scratch, capture_output=True, text=True, timeout=READ_SECONDS
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def last_line(output: str) -> Any:
    """The JSON in the last line: some readers talk before."""
    return json.loads(output.splitlines()[-1])


def interpreter(environment: str) -> Path:
    """The Python of an environment, which is made if it is not there. Skips where there is no package index."""
    requirements = HERE / f"{environment}.txt"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    folder = ENVIRONMENTS / environment
    made_of = folder / "made-of"
    with _alone(environment):
        if not made_of.is_file() or made_of.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _install(requirements, folder)
            made_of.write_text(wanted)
    return folder / "bin" / "python"


def _install(requirements: Path, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [*pip, "install", "--no-compile", "--requirement", str(requirements)],
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    if "(from versions: none)" in done.stderr:
        pytest.skip(f"no package index for {requirements.name}: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@contextmanager
def _alone(environment: str) -> Iterator[None]:
    """Several workers of a test session may want the same environment."""
    ENVIRONMENTS.mkdir(exist_ok=True)
    (ENVIRONMENTS / ".gitignore").write_text("*\n")
    with (ENVIRONMENTS / f"{environment}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
