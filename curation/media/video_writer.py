"""The writer of generated frames as a video, encoded as the clips of a dataset are by default."""

from __future__ import annotations

import shutil
from pathlib import Path

import ffmpeg as ffmpeg_line
import numpy as np
import numpy.typing as npt

from nextscene.common import ffmpeg
from nextscene.common.scratch import scratch_folder
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.media.color import TO_BT709, tagged
from nextscene.curation.media.extract import arguments, failure_outcome, raise_if_disk_full
from nextscene.curation.stages.cut import encoder_options

_AS_DATA = BuildConfig()


class EncodeFailed(OSError):
    """An error: ffmpeg failed to encode a clip. The message ends with ffmpeg's last one."""


def encode_video(video: npt.NDArray[np.uint8], out: Storage, path: str, fps: float) -> None:
    """Publish pictures, uint8 [F, H, W, RGB], as an MP4 at `path` in `out`. The file appears atomically.

    Raise ValueError if a side is odd, EncodeFailed, or StorageFault.
    """
    _, height, width, _ = video.shape
    if height % 2 or width % 2:
        raise ValueError(f"{width}×{height} pixels cannot be written: two by two of them share a color")
    with scratch_folder() as folder:
        raw, clip = folder / "raw", folder / "clip.mp4"
        np.ascontiguousarray(video).tofile(raw)
        child = ffmpeg.run(_command(raw, clip, len(video), (width, height), fps), _AS_DATA.limits)
        if child.code != 0:
            raise_if_disk_full(child.stderr, folder)
            raise EncodeFailed(f"{out.display_uri}/{path}: {failure_outcome(child, _AS_DATA).detail}")
        with out.atomic_writer(path) as file, clip.open("rb") as made:
            shutil.copyfileobj(made, file)


def _command(raw: Path, clip: Path, frames: int, size: tuple[int, int], fps: float) -> list[str]:
    """Return ffmpeg's arguments. At 16 frames per second, MP4's default time scale is that of the dataset's clips."""
    rate = f"{fps:.12g}"
    stream = ffmpeg_line.input(
        f"file:{raw}",
        format="rawvideo",
        pix_fmt="rgb24",
        video_size=size,
        framerate=rate,
        protocol_whitelist="file",
        threads=1,
    )
    stream = tagged(stream.filter("scale", **TO_BT709))
    return arguments(
        ffmpeg_line.output(stream, f"file:{clip}", **encoder_options(_AS_DATA.encode), frames=frames, r=rate)
    )
