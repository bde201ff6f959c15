"""Claim: screening processes at least 0.95 clips in the CPU time of one report by bare MediaInfo.

Measured: `stages.screen.screen` with a `SourceReader`, which looks the file up, compares size and time with the plan,
and has size, rotation, sample aspect and duration read in a child process; over 1,000 planned clips, by the CPU time of
this process and of its child, which is kept from clip to clip and was started before. The clips are hard links to four
ordinary files: H.264, 1280×720, 5 s, AAC audio, index at the end or at the front.

Compared with: the bare library, `MediaInfo.parse(path, parse_speed=0)` with its full report as XML, on the same files
in the same round.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import psutil
from pymediainfo import MediaInfo

from benchmarks.support import WORK, Result, run_alone, run_ffmpeg, write_manifest
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.media.probe import Measured
from nextscene.curation.plan import Plan, PlannedClip
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sealing.remaining import remaining
from nextscene.curation.sources import Source
from nextscene.curation.sources.reader import SourceReader
from nextscene.curation.stages.screen import screen

CLIPS = 1000
ROUNDS = 5
TARGET = 0.95
_FILES = 4
_CONFIG = BuildConfig(judge="none")

T = TypeVar("T")


def benchmark(rounds: int | None = None) -> list[Result]:
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        videos = _make_videos(Path(folder))
        clips = planned(write_manifest(Path(folder) / "clips.csv", [video.name for video in videos]))
        reader = SourceReader(Storage.at(folder), Path(folder))
        screened, bare = [], []
        for _ in range(rounds or ROUNDS):
            screened.append(_rate(clips, lambda clip: _screen(clip, reader)))
            bare.append(_rate(videos, _parse))
    ratios = [one / other for one, other in zip(screened, bare, strict=True)]
    note = f"clips per CPU-second: {statistics.median(screened):,.0f}; bare MediaInfo: {statistics.median(bare):,.0f}"
    return [Result("clips screened, over bare MediaInfo's reports", ratios, TARGET, at_most=False, notes=[note])]


def planned(manifest: Path) -> list[PlannedClip]:
    """Return the clips of a manifest as the screen gets them."""
    out = Storage.at(manifest.parent / "out")
    prepare(out, Source.at(str(manifest)), _CONFIG)
    work = remaining(Plan(out, _CONFIG), CommittedState.read(out, _CONFIG.units_per_shard), out)
    return [clip for shard in work for unit in shard.todo for clip in unit.clips]


def _make_videos(folder: Path) -> list[Path]:
    videos = []
    for place in range(_FILES):
        original = folder / f"original-{place}.mp4"
        index = ["-movflags", "+faststart"] if place >= _FILES // 2 else []
        picture, sound = "testsrc2=size=1280x720:rate=24", f"sine=frequency={220 + 20 * place}"
        encoding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", *index]
        run_ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-t", "5", *encoding, str(original))
        for copy in range(CLIPS // _FILES):
            videos.append(folder / f"clip-{place}-{copy}.mp4")
            os.link(original, videos[-1])
    return videos


def _rate(items: Sequence[T], action: Callable[[T], None]) -> float:
    action(items[0])
    begun = _cpu_seconds()
    for item in items:
        action(item)
    return len(items) / (_cpu_seconds() - begun)


def _cpu_seconds() -> float:
    """Return the CPU-seconds of this process and its living children."""
    used = [process.cpu_times() for process in psutil.Process().children()]
    return time.process_time() + sum(one.user + one.system for one in used)


def _screen(clip: PlannedClip, reader: SourceReader) -> None:
    found = screen(clip, reader, _CONFIG)
    if not isinstance(found, Measured):
        raise RuntimeError(f"{clip.location} did not pass the screen: {found}")


def _parse(video: Path) -> None:
    if "<Width>1280</Width>" not in str(MediaInfo.parse(video, parse_speed=0, output="XML")):
        raise RuntimeError(f"MediaInfo sees no video in {video}")


if __name__ == "__main__":
    run_alone(benchmark)
