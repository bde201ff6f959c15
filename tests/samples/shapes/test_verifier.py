"""The verifier: it reads every true clip as it was drawn, also after encoding, and nothing else as a clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from nextscene.common.storage import Storage
from nextscene.curation.media.video_writer import encode_video
from nextscene.samples.shapes.drawing import draw_clip
from nextscene.samples.shapes.verifier import UNSEEN, observe
from nextscene.samples.shapes.world import ATTRIBUTES, Combination, combinations
from nextscene.shards.loading.decode import decode

FRAMES, WIDTH, HEIGHT = 9, 64, 64
ONE = Combination("red", "ball", "top left", "across")
LEAST = 0.99

Clip = npt.NDArray[np.uint8]


def drawn(combination: Combination, seed: int, width: int = WIDTH, height: int = HEIGHT) -> Clip:
    return draw_clip(combination, seed, FRAMES, width, height)


def share(clips: list[tuple[Combination, Clip]]) -> float:
    return float(np.mean([all(observe(clip).matches(combination).values()) for combination, clip in clips]))


def unseen(clip: Clip) -> bool:
    return set(observe(clip)) == {UNSEEN}


def test_true_clips_of_all_combinations_are_read_right() -> None:
    clips = [(one, drawn(one, seed)) for seed, one in enumerate(combinations())]
    assert share(clips) >= LEAST


@pytest.mark.parametrize("size", [(160, 96), (208, 120)])
def test_they_are_read_in_other_sizes(size: tuple[int, int]) -> None:
    assert share([(one, drawn(one, seed, *size)) for seed, one in enumerate(combinations()[::5])]) >= LEAST


def test_they_are_read_after_encoding_as_h264_and_scaling(tmp_path: Path) -> None:
    """One clip of each fifth combination, drawn at a size, encoded as clips are, and decoded smaller."""
    out, read = Storage.at(tmp_path), []
    for seed, one in enumerate(combinations()[::12]):
        encode_video(drawn(one, seed, 416, 240), out, "clip.mp4", 16.0)
        small = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
        decode(out.read("clip.mp4"), (416, 240), small)
        read.append((one, small))
    assert share(read) >= LEAST


def test_noise_a_blank_and_a_gray_picture_show_nothing() -> None:
    random = np.random.default_rng(0)
    assert unseen(random.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8))
    assert unseen(np.full((FRAMES, HEIGHT, WIDTH, 3), 100, np.uint8))
    assert unseen(drawn(ONE, 0).mean(3, keepdims=True).repeat(3, 3).astype(np.uint8))


def test_two_shapes_show_nothing() -> None:
    left, right = drawn(ONE, 0), drawn(ONE._replace(place="bottom right"), 0)
    assert unseen(np.where(left.max(3, keepdims=True) > 150, left, right))


def test_a_shape_that_fades_or_appears_shows_nothing() -> None:
    clip = drawn(ONE, 0)
    gray = np.full_like(clip[0], 100)
    for frame in (0, -1):
        faded = clip.copy()
        faded[frame] = gray
        assert unseen(faded)


def test_a_shape_that_stops_halfway_has_no_motion_and_the_rest_is_read() -> None:
    clip = drawn(ONE, 0)
    halfway = np.concatenate([clip[:5], np.repeat(clip[4:5], 4, 0)])
    assert observe(halfway) == ("red", "ball", "top left", UNSEEN)
    assert observe(np.repeat(clip[:1], FRAMES, 0)) == ("red", "ball", "top left", "still")


def test_a_clip_played_backward_begins_where_it_ended() -> None:
    seen = observe(drawn(Combination("blue", "post", "top left", "diagonal"), 3)[::-1])
    assert seen == ("blue", "post", "bottom right", "diagonal")


def test_each_attribute_is_read_for_itself() -> None:
    other = Combination("green", "plank", "bottom left", "vertical")
    assert observe(drawn(ONE, 1)).matches(other) == dict.fromkeys(ATTRIBUTES, False)
    assert observe(drawn(ONE._replace(color="green"), 1)).matches(other) == {
        name: name == "color" for name in ATTRIBUTES
    }


def test_mild_noise_and_blur_change_nothing() -> None:
    random = np.random.default_rng(0)
    clips = []
    for seed, one in enumerate(combinations()[::7]):
        clip = drawn(one, seed).astype(float)
        blurred = (clip + np.roll(clip, 1, 1) + np.roll(clip, 1, 2) + np.roll(clip, (1, 1), (1, 2))) / 4
        noisy = blurred + random.normal(0, 8, clip.shape)
        clips.append((one, noisy.clip(0, 255).astype(np.uint8)))
    assert share(clips) >= 0.95
