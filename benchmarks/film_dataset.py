"""The sample film as a dataset, for the benchmarks of the loader, and bare PyAV, which they compare with."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from benchmarks.support import REPOSITORY, WORK, notice
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import MANIFEST, ShardName
from nextscene.shards.format.sample import Sample
from nextscene.shards.loading.reader import SplitReader
from tests.shards.samples import seal_dataset

MAX_FRAMES = 81
MICRO_BATCH = 2
_FILM = "data/film"
_ONE_PAIR_OF = 12
_CLIPS_A_SHARD = 5


def film_dataset() -> str:
    """Return the film's dataset (832×480, 16 fps, up to 81 frames per clip); it is built once, then kept."""
    out = WORK / "film"
    if not (out / MANIFEST).exists():
        notice.print("building the film's dataset, once …")
        build = ["pipelines/build_nsp.py", "--source", f"{_FILM}/shots.csv", "--out", str(out), "--judge", "film"]
        sizes = ["--test", "0.1", "--split-by", "clip", "--unit-size", "8", "--units-per-shard", "8"]
        for line in (["pipelines/fetch_film.py", _FILM], [*build, *sizes]):
            subprocess.run([sys.executable, *line], cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)
    return str(out)


def film_clips(split: str = "train") -> list[Sample]:
    reader = SplitReader(film_dataset(), split)
    return [Sample.of(reader.group(number), str(reader.shard_of(number))) for number in range(len(reader))]


def few_clips() -> list[Sample]:
    """Return a sixth of the clips of each delivered length, an even number, so that pairs contain each once."""
    clips = film_clips()
    lengths = np.array([delivered(clip) for clip in clips])
    chosen: list[int] = []
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        chosen += alike[: 2 * round(len(alike) / _ONE_PAIR_OF)].tolist()
    return [clips[number] for number in sorted(chosen)]


def delivered(clip: Sample) -> int:
    """Return the number of frames of a clip that the loader delivers."""
    return (min(clip.record.frames, MAX_FRAMES) - 1) // 8 * 8 + 1


def sealed(folder: Path, clips: list[Sample]) -> Storage:
    """Write these clips as a dataset with the split `train`, in shards of a few."""
    runs = [clips[at : at + _CLIPS_A_SHARD] for at in range(0, len(clips), _CLIPS_A_SHARD)]
    return seal_dataset(folder, {ShardName("train", place): run for place, run in enumerate(runs)})


def renamed(clip: Sample, key: str) -> Sample:
    """Return the same clip under another key."""
    return Sample(key, replace(clip.record, clip_id=key).to_bytes(), clip.media, clip.text)


def decode_bare(mp4: bytes, frames: int) -> None:
    """Decode the first frames of a video to RGB in PyAV's own memory, with one thread, unchecked, and discard them."""
    reformatter = VideoReformatter()
    with av.open(io.BytesIO(mp4), mode="r", format="mp4") as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in islice(container.decode(video=0), frames):
            reformatter.reformat(frame, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1)
