"""Children that read strangers' files hold none of our keys, and nothing in the product starts one otherwise."""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nextscene.common import ffmpeg
from nextscene.common.environment import clean_environment, storage_environment
from nextscene.common.storage import Storage
from nextscene.curation.config import RunLimits
from nextscene.curation.media.header_reader import HEADER_READER, HeaderReader
from nextscene.curation.media.image_reader import IMAGE_CHILDREN
from nextscene.curation.report.make import write_report
from tests.support import REPOSITORY, SMALL, build_inline, ledger, make_video, run_ffmpeg, write_csv

SECRETS = (
    "ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE"
    " GOOGLE_APPLICATION_CREDENTIALS AZURE_STORAGE_KEY HF_TOKEN RAY_AUTH_TOKEN WANDB_API_KEY A_NEW_ONE"
).split()

_started: list[tuple[list[str], dict[str, str] | None]] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        _, line, _, environment = arguments
        _started.append(([str(word) for word in line], environment))


@pytest.fixture(scope="module")
def started() -> list[tuple[list[str], dict[str, str] | None]]:
    """Each program that this process starts, with its environment, None for ours."""
    sys.addaudithook(_note)  # there is no way to remove it
    return _started


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in SECRETS:
        monkeypatch.setenv(name, "secret")
    HEADER_READER.close()
    IMAGE_CHILDREN.close()
    yield
    HEADER_READER.close()
    IMAGE_CHILDREN.close()


def test_what_programs_need_is_passed_on_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ("LC_ALL", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PATH", "HOME")
    for name in needed:
        monkeypatch.setenv(name, "x")
    kept = clean_environment()
    assert {kept[name] for name in needed} == {"x"} and "secret" not in kept.values()


def test_what_reads_an_object_store_keeps_its_credentials_and_not_the_judges() -> None:
    kept = storage_environment()
    assert {"AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_KEY"} <= set(kept)
    assert not any(name.startswith(("ANTHROPIC_", "RAY_")) for name in kept)


def test_no_child_of_a_build_and_of_its_page_gets_a_secret(
    tmp_path: Path, started: list[tuple[list[str], dict[str, str] | None]]
) -> None:
    """A video, a damaged one, one that is too small, and an image: all that is ever started is started."""
    folder = tmp_path / "in"
    whole = make_video(folder / "whole.mp4", 0.5)
    data = bytearray(whole.read_bytes())
    place = data.index(b"mdat") + 4 + (len(data) - data.index(b"mdat")) // 3
    data[place : place + 2000] = random.Random(1).randbytes(2000)
    (folder / "damaged.mp4").write_bytes(data)
    make_video(folder / "small.mp4", 0.25, "64x48")
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=512x512", "-frames:v", "1", str(folder / "image.png"))
    names = ["whole.mp4", "damaged.mp4", "small.mp4", "image.png"]
    source = write_csv(folder / "clips.csv", [{"video": name, "caption": "a caption"} for name in names])

    ffmpeg.build.cache_clear()
    started.clear()
    build_inline(source, tmp_path / "out", SMALL)
    write_report(Storage.at(tmp_path / "out"), SMALL, "", Storage.at(folder))
    assert [row.reason for row in ledger(tmp_path / "out")] == ["", "damaged", "too_small", ""]
    programs = {word.rpartition("/")[2] for line, _ in started for word in line[:3]}
    assert {
        "header_child.py",
        "image_child.py",
        "damage_child.py",
        "decode_pool.py",
        Path(ffmpeg.executable()).name,
    } <= programs
    for line, environment in started:
        assert environment is not None and not set(SECRETS) & set(environment), line


def test_the_kernel_knows_of_no_secret_either(tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    reader = HeaderReader()
    reader.measure(make_video(tmp_path / "a.mp4", 0.25), RunLimits())
    (child,) = set(psutil.Process().children()) - before
    assert not set(SECRETS) & set(child.environ()) and "PATH" in child.environ()
    reader.close()


def test_nothing_is_started_without_saying_with_which_environment() -> None:
    rooms = ("common", "curation", "shards", "judge", "training", "prompts")
    calls = [
        (f"{path.relative_to(REPOSITORY)}:{node.lineno}", {keyword.arg for keyword in node.keywords})
        for room in rooms
        for path in (REPOSITORY / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in STARTERS
    ]
    assert len(calls) >= 3
    assert [place for place, named in calls if "env" not in named] == []


STARTERS = {
    *(f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")),
    *(f"os.{name}" for name in ("system", "popen", "fork", "posix_spawn", "execv", "execvp", "spawnv")),
    *(f"{place}Process" for place in ("multiprocessing.", "context.", "")),
    "ProcessPoolExecutor",
}
