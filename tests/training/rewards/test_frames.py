"""Pictures of a video that was made: the right frames, no larger than they are, the same bytes every time."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nextscene.judge.config import ClaudeConfig
from nextscene.training.rewards.frames import jpeg_frames
from tests.fakes.claude_api import images


def ramp(count: int, height: int = 16, width: int = 24) -> torch.Tensor:
    """Each frame is of one gray, that of its number."""
    return torch.arange(count, dtype=torch.uint8).mul(3)[:, None, None, None].expand(count, height, width, 3)


def pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


@given(st.integers(1, 80), st.integers(1, 12))
def test_frames_lie_evenly_from_the_first_to_the_last_each_at_its_time(count: int, most: int) -> None:
    made = jpeg_frames(ramp(count), 16.0, most, 336)
    shown = [round(pixels(frame.jpeg).mean() / 3) for frame in made]
    assert [frame.seconds for frame in made] == [place / 16 for place in shown]
    assert len(shown) == min(count, most) and shown[0] == 0
    if len(shown) > 1:
        assert shown[-1] == count - 1
        assert all(abs(place - i * (count - 1) / (len(shown) - 1)) <= 0.5 for i, place in enumerate(shown))


def test_a_frame_of_the_papers_size_costs_252_tokens() -> None:
    settings = ClaudeConfig()
    made = jpeg_frames(torch.zeros(65, 480, 832, 3, dtype=torch.uint8), 16.0, settings.frames, settings.frame_height)
    assert len(made) == 8
    assert {(frame.width, frame.height, frame.tokens) for frame in made} == {(582, 336, 252)}
    assert made[-1].seconds == 4.0


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([28, 56]))
def test_pictures_keep_their_shape_and_are_never_enlarged(width: int, height: int, most: int) -> None:
    (frame,) = jpeg_frames(ramp(1, height, width), 16.0, 1, most)
    assert (frame.width, frame.height) == images.size(frame.jpeg)
    if height <= most:
        assert (frame.width, frame.height) == (width, height)
    else:
        assert frame.height == most
        assert frame.width % 2 == 0 and abs(frame.width - width * most / height) <= 1 + (frame.width == 2)


@pytest.mark.parametrize("height", [336, 28])
def test_the_same_video_gives_the_same_bytes_however_it_lies_in_memory(height: int) -> None:
    video = torch.randint(256, (9, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    apart = video.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    assert jpeg_frames(video, 16.0, 4, height) == jpeg_frames(apart, 16.0, 4, height)
    assert jpeg_frames(video, 16.0, 4, height) != jpeg_frames(video.flip(0), 16.0, 4, height)


def test_a_picture_is_what_the_frame_is() -> None:
    red, blue = torch.tensor([220, 20, 30], dtype=torch.uint8), torch.tensor([10, 30, 210], dtype=torch.uint8)
    half = torch.cat([red.expand(96, 48, 3), blue.expand(96, 48, 3)], dim=1)
    shown = pixels(jpeg_frames(half[None], 16.0, 1, 48)[0].jpeg).astype(int)
    assert shown.shape == (48, 48, 3)
    assert np.abs(shown[:, :20] - red.numpy()).max() < 12 and np.abs(shown[:, 28:] - blue.numpy()).max() < 12
