"""Datasets of real little videos, each of a picture that tells which frame of which clip it is."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from nextscene.common.storage import Storage
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.sample import Sample
from tests.shards.samples import sample, sample_of, seal_dataset

WIDTH, HEIGHT = 64, 48


@cache
def encode(gray: int, frames: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """A lossless gray video, one shade brighter with each frame, tagged as the pipeline tags its clips."""
    shades = [min(gray + frame, 235) for frame in range(frames)]
    luma = np.repeat(np.array(shades, np.uint8)[:, None], width * height, axis=1)
    chroma = np.full((frames, width * height // 2), 128, np.uint8)
    raw = np.concatenate([luma, chroma], axis=1).tobytes()
    size = f"{width}x{height}"
    return ffmpeg("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", size, "-r", "16", "-i", "-", *lossless(), data=raw)


def lossless() -> list[str]:
    """Said to be BT.709, not converted to it."""
    tagged = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
    return ["-vf", tagged, "-c:v", "libx264", "-qp", "0", "-movflags", "frag_keyframe+empty_moov", "-f", "mp4", "-"]


def ffmpeg(*arguments: str, data: bytes = b"") -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *arguments]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def clip(number: int, frames: int, width: int = WIDTH, height: int = HEIGHT) -> Sample:
    """Clip `number` begins with a luma of 20 + 2 × number."""
    scene = f"scene {number}"
    record = replace(sample(number).record, frames=frames, width=width, height=height, scene_description=scene)
    return sample_of(record, encode(20 + 2 * number, frames, width, height), scene)


def clip_dataset(folder: Path, lengths: list[int], per_shard: int = 4) -> Storage:
    """Clips of so many frames each; one of one frame is an image, and square."""
    clips = [
        clip(number, frames, *((32, 32) if frames == 1 else (WIDTH, HEIGHT))) for number, frames in enumerate(lengths)
    ]
    runs = [clips[at : at + per_shard] for at in range(0, len(clips), per_shard)]
    return seal_dataset(folder, {ShardName("train", place): run for place, run in enumerate(runs)})


def shades(video: npt.NDArray[np.uint8]) -> list[int]:
    """The luma of each frame, found again in its pixels."""
    assert video.std(axis=(-3, -2, -1)).max() < 1
    means: npt.NDArray[np.float64] = video.mean(axis=(-3, -2, -1))
    # Half a step more: the conversion to RGB cuts off what lies behind the point.
    return [round(value) for value in ((means + 0.5) / 255 * 219 + 16).reshape(-1)]
