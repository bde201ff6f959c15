"""Small videos for people to look at, encoded in this process. They are not data: nothing depends on their bytes."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Colorspace

from nextscene.common import atomic

_BT709 = 1
_OPTIONS = {"crf": "20", "preset": "veryfast"}


def write_mp4(path: Path, video: npt.NDArray[np.uint8], fps: float) -> None:
    """Write frames, uint8 [F, H, W, RGB], as H.264. The file appears atomically.

    An odd side is padded by a pixel. Raise OSError.
    """
    height, width = (side + side % 2 for side in video.shape[1:3])
    padding = ((0, 0), (0, height - video.shape[1]), (0, width - video.shape[2]), (0, 0))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=dict(_OPTIONS))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        coder = stream.codec_context
        coder.thread_count = 1
        coder.colorspace = coder.color_primaries = coder.color_trc = _BT709
        for pixels in np.pad(video, padding, mode="edge"):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        container.mux(stream.encode())
    atomic.write_file(path, file.getvalue())
