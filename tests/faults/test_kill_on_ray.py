"""The real command on Ray, with processes killed at random: the driver, a worker, the judge, the decoder, or all."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from nextscene.curation.config import BuildConfig
from tests.support import REPOSITORY, assert_conserved, assert_same_dataset, make_video, write_csv

pytestmark = pytest.mark.slow

CONFIG = BuildConfig(judge="film", test=0.2, split_by="clip", unit_size=2, units_per_shard=2)
FLAGS = ["--judge", "film", "--test", "0.2", "--split-by", "clip", "--unit-size", "2", "--units-per-shard", "2"]
CLIPS_IN_ALL = 30


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    make_video(folder / "film.mp4", CLIPS_IN_ALL, "1280x720", "24")
    words = [f"{a}{b}" for a in "abcdef" for b in "vwxyz"]
    rows = [
        {"video": "film.mp4", "start": i, "end": i + 1, "caption": f"thing{words[i]} doing{words[i]}"}
        for i in range(CLIPS_IN_ALL)
    ]
    return write_csv(folder / "shots.csv", rows)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with driver(source, out, workers=2) as process:
        assert process.wait(120) == 0
    return out


@contextmanager
def driver(source: Path, out: Path, workers: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command, and kill it and all that it started at the end of the block."""
    command = [sys.executable, "pipelines/build_nsp.py", "--source", str(source), "--out", str(out), *FLAGS]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    family: set[psutil.Process] = set()
    try:
        yield process
    finally:
        family |= set(relatives(process.pid))
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.kill()
        process.wait()


def relatives(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


VICTIMS = {
    "driver": (),
    "worker": ("ray::cut_unit", "ray::screen_unit", "ray::try_clip", "ray::seal_or_redo"),
    "judge": ("ray::_JudgeActor",),
    "ffmpeg": ("ffmpeg",),
    "everything": (),
}
"""The processes that are killed, once each, and their names. Only one worker is killed: the first death of a unit's
worker is not blamed on a clip, but a clip that is alone in two more deaths would be quarantined."""


def strike(process: subprocess.Popen[bytes], kind: str, chance: random.Random) -> bool:
    """Wait a random time, then kill a process of that kind once there is one. Return False if the run ended first."""
    time.sleep(chance.uniform(0.0, 1.5))
    while process.poll() is None:
        family = relatives(process.pid)
        victims = [p for p in family if named(p, *VICTIMS[kind])] if VICTIMS[kind] else [psutil.Process(process.pid)]
        if victims:
            for victim in [*family, *victims] if kind == "everything" else [chance.choice(victims)]:
                with suppress(psutil.NoSuchProcess):
                    victim.send_signal(signal.SIGKILL)
            return True
        time.sleep(0.02)
    return False


def named(process: psutil.Process, *names: str) -> bool:
    try:
        title = " ".join(process.cmdline()[:1])
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    return any(name in title for name in names)


def wait_for_work(process: subprocess.Popen[bytes]) -> None:
    """Wait until there are workers to kill, or the run has ended."""
    while process.poll() is None and not any(named(p, "ray::cut_unit", "ffmpeg") for p in relatives(process.pid)):
        time.sleep(0.05)


def test_killed_at_random_and_resumed_the_dataset_is_the_undisturbed_one(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, chance = tmp_path / "out", random.Random(0)
    to_kill = chance.sample(list(VICTIMS), len(VICTIMS))
    while to_kill:
        with driver(source, out, workers=2) as process:
            wait_for_work(process)
            while to_kill and strike(process, to_kill[-1], chance):
                to_kill.pop()
            if process.poll() == 0:
                break  # the run was done before every kind was killed
    assert len(to_kill) <= 1, f"not killed: {to_kill}"
    with driver(source, out, workers=2) as process:
        assert process.wait(180) == 0
    assert_same_dataset(undisturbed, out, CONFIG)
    assert_conserved(out, CONFIG)


def test_one_worker_on_another_day_makes_the_same_dataset_as_two_workers(
    source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The source files are copied to another folder, with other modification times."""
    later = tmp_path / "copied"
    later.mkdir()
    for file in source.parent.iterdir():
        (later / file.name).write_bytes(file.read_bytes())
        os.utime(later / file.name, (2_000_000_000, 2_000_000_000))
    with driver(later / source.name, tmp_path / "out", workers=1) as process:
        assert process.wait(180) == 0
    assert_same_dataset(undisturbed, tmp_path / "out", CONFIG)
