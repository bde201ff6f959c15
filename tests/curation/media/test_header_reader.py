"""Reading headers in a child: what it measures is what is measured here, and what kills it is its file's own end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import psutil
import pytest

from nextscene.curation.config import RunLimits
from nextscene.curation.media import header_child, header_reader
from nextscene.curation.media.header_reader import HEADER_READER, HeaderError, HeaderReader
from nextscene.curation.media.probe import UnreadableFile
from tests.curation.measuring import ended_alike
from tests.hostile.__main__ import FILES
from tests.hostile.running import write
from tests.support import CLIPS, REPOSITORY, make_video, needs_clips

pytestmark = pytest.mark.slow

TIGHT = RunLimits(header_seconds=0.1, header_memory_mb=400)
"""Sound files take less."""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "a.mp4", 0.25)


@pytest.fixture
def reader() -> Iterator[HeaderReader]:
    HEADER_READER.close()
    reader = HeaderReader()
    yield reader
    reader.close()


def hostile(folder: Path, name: str) -> Path:
    (path,) = write(folder, {name: FILES[name]})
    return path


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if header_child.__file__ in one.cmdline()]


# ---- the same numbers ------------------------------------------------------------------------------------------


@needs_clips
def test_real_clips_are_measured_as_in_this_process() -> None:
    for path in sorted(CLIPS.iterdir()):
        ended_alike(path)


def test_a_file_that_is_read_for_the_child_is_read_where_the_child_asks(video: Path, reader: HeaderReader) -> None:
    """Sound files are said to take some dozen reads; what they are is compared in `ended_alike`."""

    class Counted:
        reads = 0

        def __init__(self, file: BinaryIO) -> None:
            self._file, self.seek = file, file.seek

        def read(self, size: int) -> bytes:
            self.reads += 1
            return self._file.read(size)

    with video.open("rb") as file:
        counted = Counted(file)
        reader.measure(cast(BinaryIO, counted), RunLimits())
    assert 0 < counted.reads < 50


# ---- bounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mp4: a compressed header of 4 GB", "its headers take more than 400 MB of memory"),
        ("flv: 30,000 objects deep", "its headers end the process that reads them: SIGSEGV"),
    ],
)
def test_a_file_that_exceeds_a_bound_says_which_and_the_next_one_is_measured(
    video: Path, tmp_path: Path, reader: HeaderReader, name: str, why: str
) -> None:
    before = reader.measure(video, TIGHT)
    with pytest.raises(HeaderError, match=why):
        reader.measure(hostile(tmp_path, name), TIGHT)
    assert reader.measure(video, TIGHT) == before


def test_what_is_read_for_the_child_has_an_end(
    video: Path, reader: HeaderReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_reader, "_MAX_READS", 2)
    with video.open("rb") as file, pytest.raises(HeaderError, match="its headers take more than 2 reads"):
        reader.measure(file, TIGHT)
    reader.measure(video, TIGHT)


def test_one_death_is_not_believed(video: Path, reader: HeaderReader) -> None:
    """The child may have been spoiled by a file before, or killed for want of memory elsewhere."""
    before = reader.measure(video, TIGHT)
    (child,) = children()
    child.kill()
    assert reader.measure(video, TIGHT) == before
    child.wait()


def test_a_child_that_has_grown_is_left_for_a_new_one(tmp_path: Path, video: Path, reader: HeaderReader) -> None:
    limits = replace(TIGHT, header_seconds=5.0, header_memory_mb=350)
    with suppress(UnreadableFile):
        reader.measure(hostile(tmp_path, "ts: 250 programs of 190 streams"), limits)
    assert children() == []
    reader.measure(video, limits)
    (kept,) = children()
    reader.measure(video, limits)
    assert children() == [kept]


def test_a_disk_that_does_not_answer_is_no_fault_of_the_file(video: Path, reader: HeaderReader) -> None:
    reader.measure(video, TIGHT)
    (child,) = children()
    child.suspend()
    with pytest.raises(TimeoutError, match=r"its disk has not answered in 0\.1 s"):
        reader.measure(video, replace(TIGHT, clip_seconds=0.1))
    reader.measure(video, TIGHT)


def test_a_child_that_waits_for_its_turn_is_waited_for(tmp_path: Path, reader: HeaderReader) -> None:
    """On a busy machine CPU time takes long."""
    with pytest.raises(HeaderError, match=r"its headers take more than 0\.1 s of CPU time"):
        reader.measure(hostile(tmp_path, "mp4: groups, 4G"), replace(TIGHT, clip_seconds=0.5))


def test_a_fault_of_storage_while_reading_for_the_child_is_told_as_it_is(video: Path, reader: HeaderReader) -> None:
    class Failing:
        def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
            return 1000

        def read(self, size: int) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        reader.measure(cast(BinaryIO, Failing()), TIGHT)
    reader.measure(video, TIGHT)


def test_the_child_ends_with_its_parent(video: Path) -> None:
    program = (
        "import os, pathlib, psutil, signal, sys\n"
        "from nextscene.curation.config import RunLimits\n"
        "from nextscene.curation.media.header_reader import HEADER_READER\n"
        "HEADER_READER.measure(pathlib.Path(sys.argv[1]), RunLimits())\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(video)], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(10)


# ---- a dataset of them -----------------------------------------------------------------------------------------


def test_hostile_files_fail_alone_within_limits_and_leave_others_unchanged() -> None:
    """In a process of its own, whose memory is that of a worker; without names it takes all of the files."""
    names = [
        "mp4: edits, 4G",
        "mp4: a compressed header of 4 GB",
        "mkv: 20,000 tags deep",
        "flv: 30,000 objects deep",
        "tif: a profile of 4 GB",
        "jpg: directories in a loop",
    ]
    line = [sys.executable, "-m", "tests.hostile", "--header-seconds", "3", *names]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(names)} files; bad: none; neighbors changed: 0" in done.stdout
    assert re.search("flv: 30,000 objects deep.*failed header_error: its headers end the process", done.stdout)
