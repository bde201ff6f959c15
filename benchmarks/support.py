"""Shared parts of the benchmarks: clips, bare ffmpeg, the CPU time of process trees, and the table."""

from __future__ import annotations

import csv
import ctypes
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.table import Table

from nextscene.common import ffmpeg
from nextscene.pipelines.cli.command import Command

REPOSITORY = Path(__file__).resolve().parent.parent
WORK = REPOSITORY / "data" / "benchmarks"
"""Folder for temporary files: on the disk of the repository, and ignored by git."""

_FILM_FOLDER = REPOSITORY / "data" / "film"
_NICENESS_OF_RAY_WORKERS = 15
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_EVERY_SECONDS = 0.1
_ORPHANS_END_WITHIN_SECONDS = 30.0

console = Console(soft_wrap=True, highlight=False)
notice = Console(stderr=True, soft_wrap=True, highlight=False)


# ---- results -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """One claim: a figure for each round, and the target for their median."""

    claim: str
    rounds: Sequence[float]
    target: float
    at_most: bool = True
    unit: str = ""
    notes: Sequence[str] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def met(self) -> bool:
        return self.median <= self.target if self.at_most else self.median >= self.target

    def row(self) -> tuple[str, str, str, str]:
        low, high = min(self.rounds), max(self.rounds)
        spread = f"{_short(self.median)}{self.unit} ({_short(low)}–{_short(high)}, n={len(self.rounds)})"
        sign = "≤" if self.at_most else "≥"
        return self.claim, spread, f"{sign} {_short(self.target)}{self.unit}", "met" if self.met else "not met"


Benchmark = Callable[[int | None], list[Result]]
"""Measures its claims in the given number of rounds; None is its own default."""


def show(results: Sequence[Result]) -> None:
    table = Table("claim", "median (range, n rounds)", "target", "", title="Benchmarks", title_justify="left")
    for result in results:
        table.add_row(*result.row(), style=None if result.met else "bold")
    console.print(table)
    console.print(machine(), markup=False)
    for result in results:
        for note in result.notes:
            console.print(f"{result.claim}: {note}", markup=False)


def run_alone(benchmark: Benchmark) -> None:
    """Run the command line of one benchmark."""

    @click.command(cls=Command, help=sys.modules[benchmark.__module__].__doc__)
    @click.option("--rounds", type=click.IntRange(1), help="Number of rounds.  [default: the benchmark's own]")
    def main(rounds: int | None) -> None:
        show(benchmark(rounds))

    main()


def machine() -> str:
    now = datetime.now(UTC)
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    cores = f"{len(psutil.Process().cpu_affinity())} cores of {_cpu_model()}, {memory:.0f} GiB memory"
    return f"{now:%Y-%m-%d}, {cores}, {system}, load {os.getloadavg()[0]:.1f} at the end"


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.processor()


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


# ---- clips ---------------------------------------------------------------------------------------------------------


def film() -> Path:
    """Return the sample film, which is downloaded if it is missing."""
    path = _FILM_FOLDER / "big_buck_bunny.mp4"
    if not path.exists():
        subprocess.run([sys.executable, "pipelines/fetch_film.py", str(_FILM_FOLDER)], cwd=REPOSITORY, check=True)
    return path


def film_clips(folder: Path, count: int) -> Path:
    """Put `count` clips of real footage, 1280×720 and about 5 s each, into a folder; return a manifest of them.

    The sample film is split at its keyframes, without re-encoding.
    """
    folder.mkdir(parents=True, exist_ok=True)
    split = ["-f", "segment", "-segment_time", "5", "-reset_timestamps", "1"]
    run_ffmpeg("-i", str(film()), "-map", "0", "-c", "copy", *split, str(folder / "%03d.mp4"))
    names = sorted(path.name for path in folder.glob("*.mp4"))[:count]
    if len(names) < count:
        raise RuntimeError(f"the film was split into {len(names)} pieces, {count} are needed")
    return write_manifest(folder / "clips.csv", names)


def write_manifest(path: Path, videos: Sequence[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "caption"])
        writer.writerows([video, "a short caption of a small clip"] for video in videos)
    return path


def read_manifest(path: Path) -> list[Path]:
    with path.open(newline="", encoding="utf-8") as file:
        return [path.parent / row["video"] for row in csv.DictReader(file)]


def run_ffmpeg(*arguments: str) -> None:
    line = [ffmpeg.executable(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *arguments]
    subprocess.run(line, check=True)


# ---- bare ffmpeg ---------------------------------------------------------------------------------------------------


_BARE = """
-hide_banner -nostdin -loglevel error -filter_threads 1 -filter_complex_threads 1 -protocol_whitelist file -threads 1
-i {video} -filter_complex
[0:V:0]fps=fps=16:round=near:start_time=0,scale=w=max(832\\,ceil(480*iw*sar/ih/2)*2):h=max(480\\,ceil(832*ih/(iw*sar)/2)*2):out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int+bitexact,crop=w=832:h=480,setsar=sar=1[clip]
-map [clip] -f mp4 -vcodec libx264 -pix_fmt yuv420p -preset veryfast -crf 18 -g 16 -keyint_min 16 -sc_threshold 0 -bf 0
-threads 1 -color_primaries bt709 -color_trc bt709 -colorspace bt709 -color_range tv -movflags +faststart
-map_metadata -1 -map_chapters -1 -flags:v +cgop+bitexact -fflags +bitexact -frames 81 -r 16
-video_track_timescale 16384 {target} -y
"""
"""The arguments of the first version of the cut for a whole file. They never change, so that figures compare."""


def bare_lines(videos: Sequence[Path], scratch: Path) -> list[list[str]]:
    """Return the command lines of bare ffmpeg for whole files, each into a file of its own."""
    scratch.mkdir(parents=True, exist_ok=True)
    return [_bare_line(video, scratch / f"{place}.mp4") for place, video in enumerate(videos)]


def _bare_line(video: Path, target: Path) -> list[str]:
    return [
        ffmpeg.executable(),
        *(word.format(video=f"file:{video}", target=f"file:{target}") for word in _BARE.split()),
    ]


def run_bare(line: Sequence[str]) -> None:
    """Run it with the priority that Ray gives its workers, so that other load slows both equally."""
    nice = ["nice", "-n", str(_NICENESS_OF_RAY_WORKERS)]
    subprocess.run(
        [*nice, *line], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
    )


# ---- processes -----------------------------------------------------------------------------------------------------


def child(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module of `benchmarks.children` and return the last line of its output, as JSON."""
    line = [sys.executable, "-m", f"benchmarks.children.{module}", *arguments]
    done = subprocess.run(line, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def children_cpu() -> float:
    """Return the CPU-seconds of all children that have ended and been waited for, with those of their children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class TreeCpu:
    """CPU-seconds of a command and its descendants; `parts` by kind of process, as far as observed."""

    total: float
    parts: dict[str, float]


def tree_cpu(line: Sequence[str]) -> TreeCpu:
    """Run a command until it and all its descendants have ended.

    The kernel adds a child's CPU time to its parent's when the parent waits for it. That would miss two kinds of
    process. Daemons that outlive the command: this process adopts them (PR_SET_CHILD_SUBREAPER) and waits for them.
    Children of Ray's raylet, which waits for none of them: they are sampled ten times a second, together with the time
    of their own children, so that at most the last tenth of a second of each is missing.
    """
    _take_in_orphans()
    before = children_cpu()
    started = subprocess.Popen(
        line, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    watcher = _Watcher(started.pid)
    code = started.wait()
    orphans = _wait_for_orphans()
    watcher.end()
    if code:
        raise subprocess.CalledProcessError(code, list(line))
    return TreeCpu(children_cpu() - before + watcher.never_waited_for(orphans), watcher.parts())


def _take_in_orphans() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _wait_for_orphans() -> set[int]:
    """Return their process ids."""
    until = time.monotonic() + _ORPHANS_END_WITHIN_SECONDS
    orphans: set[int] = set()
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return orphans
        if ended:
            orphans.add(ended)
        elif time.monotonic() > until:
            left = [process.name() for process in psutil.Process().children(recursive=True)]
            raise RuntimeError(f"still running {_ORPHANS_END_WITHIN_SECONDS:.0f} s after the command: {left}")
        else:
            time.sleep(0.05)


@dataclass(frozen=True)
class _Seen:
    """The last sample of a process: its own CPU-seconds, and those of the children it has waited for."""

    kind: str
    below_raylet: bool
    own: float
    waited_for: float


class _Watcher:
    """Samples the descendants of this process, a few times a second."""

    def __init__(self, driver: int) -> None:
        self._driver = driver
        self._seen: dict[int, _Seen] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def never_waited_for(self, orphans: set[int]) -> float:
        return sum(
            seen.own + seen.waited_for for pid, seen in self._seen.items() if seen.below_raylet and pid not in orphans
        )

    def parts(self) -> dict[str, float]:
        parts: dict[str, float] = {}
        for seen in self._seen.values():
            parts[seen.kind] = parts.get(seen.kind, 0.0) + seen.own
        return parts

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_SECONDS):
            processes = psutil.Process().children(recursive=True)
            with suppress(psutil.Error):
                raylets = {process.pid for process in processes if process.name() == "raylet"}
                for process in processes:
                    self._look(process, raylets)

    def _look(self, process: psutil.Process, raylets: set[int]) -> None:
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                used = process.cpu_times()
                self._seen[process.pid] = _Seen(
                    self._kind(process),
                    process.ppid() in raylets,
                    used.user + used.system,
                    used.children_user + used.children_system,
                )

    def _kind(self, process: psutil.Process) -> str:
        if process.pid == self._driver:
            return "driver"
        line = " ".join(process.cmdline())
        if not line and process.pid in self._seen:
            return self._seen[process.pid].kind  # it is about to end
        if Path(ffmpeg.executable()).name in line:
            return "ffmpeg"
        return "workers" if line.startswith("ray::") or "default_worker" in line else "daemons"
