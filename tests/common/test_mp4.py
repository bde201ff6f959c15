"""Small videos: what is written plays with the same frames, length and rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from nextscene.common.mp4 import write_mp4


def frames(count: int, height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A gradient that grows lighter, red on the left and blue on the right."""
    shade = np.linspace(40, 220, count)[:, None, None, None]
    color = np.stack([np.linspace(1, 0.2, width), np.full(width, 0.5), np.linspace(0.2, 1, width)], axis=-1)
    return np.broadcast_to(shade * color, (count, height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("count", "height", "width", "fps"), [(9, 24, 32, 16.0), (1, 25, 33, 12.5), (5, 24, 32, 23.976)]
)
def test_what_is_written_is_read_back(tmp_path: Path, count: int, height: int, width: int, fps: float) -> None:
    video = frames(count, height, width)
    write_mp4(tmp_path / "a.mp4", video, fps)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(fps).limit_denominator(1001)
        read = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert read.shape == (count, height + height % 2, width + width % 2, 3)
    assert np.abs(read[:, :height, :width].astype(int) - video).mean() < 6
