"""A dataset made of hostile files and their neighbors, a clip at a time, and what each of them takes."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from nextscene.common import ffmpeg
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.plan import Plan
from nextscene.curation.run.locations import open_out
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sealing.remaining import remaining
from nextscene.curation.sealing.seal_shard import seal_shard
from nextscene.curation.sources import Source
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit
from nextscene.shards.format.receipt import sealed_shards
from nextscene.shards.loading.reader import ShardReader
from tests.support import write_csv

File = bytes | tuple[bytes, int]
"""What a file begins with, and perhaps how long it is."""

CONFIG = BuildConfig(judge="none", test=0.0, unit_size=1, units_per_shard=1000)
_LOOK_EVERY_SECONDS = 0.02


@dataclass
class Taken:
    """What one clip took: seconds, and the most memory of this process and all below it, in MiB.

    `screening` is the memory until its headers were read.
    """

    end: str = ""
    seconds: float = 0.0
    screening: float = 0.0
    memory: float = 0.0


@dataclass
class _Memory:
    peak: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        this = psutil.Process()
        while not self.stop.wait(_LOOK_EVERY_SECONDS):
            used = 0
            for process in [this, *this.children(recursive=True)]:
                with suppress(psutil.Error):
                    used += process.memory_info().rss
            self.peak = max(self.peak, used / 2**20)


@contextmanager
def _watched() -> Iterator[_Memory]:
    memory = _Memory()
    thread = threading.Thread(target=memory.watch)
    thread.start()
    try:
        yield memory
    finally:
        memory.stop.set()
        thread.join()


def write(folder: Path, files: Mapping[str, Callable[[], File]]) -> list[Path]:
    """Each as a file of its own; what a file is longer than its bytes takes no room on the disk."""
    paths = []
    for name, make in files.items():
        made = make()
        path = folder / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.{name.partition(':')[0]}"
        path.write_bytes(made if isinstance(made, bytes) else made[0])
        if not isinstance(made, bytes):
            os.truncate(path, made[1])
        paths.append(path)
    return paths


def build(videos: Sequence[Path], out: Path, config: BuildConfig = CONFIG) -> dict[str, Taken]:
    """Make a dataset of the videos, and return what each took, by the name of its file."""
    manifest = write_csv(out.with_suffix(".csv"), [{"video": str(video), "caption": "a caption"} for video in videos])
    place, source, taken = open_out(str(out)), Source.at(str(manifest)), {}
    prepare(place, source, config)
    job = UnitContext(config, source.root, place, ffmpeg.build(), "hostile")
    for work in remaining(Plan(place, config), CommittedState.read(place, config.units_per_shard), place):
        for unit in work.todo:
            (clip,) = unit.clips
            taken[Path(clip.name).name] = one = Taken()
            begun = time.monotonic()
            with _watched() as memory:
                screened = screen_unit(job, unit)
                one.screening = memory.peak
                ((outcome, reason),) = cut_unit(job, unit, screened, [None])
            one.seconds, one.memory = time.monotonic() - begun, memory.peak
            (found,) = screened
            detail = found.detail if isinstance(found, ClipOutcome) else ""
            one.end = f"{outcome} {reason}".strip() + (f": {detail}" if detail else "")
        seal_shard(job.out, work.name, work.units)
    return taken


def samples(out: Path) -> dict[str, bytes]:
    """The bytes of each sample, by its clip."""
    place = Storage.at(out)
    readers = [ShardReader(place, shard) for shard in sealed_shards(place).values()]
    return {clip_id: reader.sample(clip_id).to_bytes() for reader in readers for clip_id in reader.receipt.clip_ids}
