"""Crops that the source gives: black bars and marks at the edges do not come into the clip."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from nextscene.curation.config import BuildConfig, EncodeConfig, Rules
from nextscene.curation.media.crop import cropped
from nextscene.curation.media.probe import Crop, Measured
from nextscene.curation.media.seek import Span
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.rules.base import ClipFacts
from nextscene.curation.rules.headers import size_rule
from nextscene.curation.stages.cut import Cut, cut
from tests.curation.stages.test_screen import CLIP
from tests.support import run_ffmpeg

BARS = Crop(left=13, top=20, width=134, height=61)
"""The bright part of the picture; its edges are odd, which chroma planes cannot be cropped to."""
CONFIG = BuildConfig(
    resolution="native", rules=Rules(min_width=64, min_height=48), encode=EncodeConfig(crf=1, image_side=64)
)


def write_video(path: Path, *further: str, size: str = "160x96") -> Path:
    """A white box with a blue left half in black, at the place of BARS."""
    box = f"drawbox=x={BARS.left}:y={BARS.top}:w={BARS.width}:h={BARS.height}:color=white:t=fill"
    half = f"drawbox=x={BARS.left}:y={BARS.top}:w={BARS.width // 2}:h={BARS.height}:color=0x4040ff:t=fill"
    picture = f"color=black:size={size}:rate=16:duration=0.625,format=gbrp,{box},{half},scale,format=yuv420p"
    run_ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-crf", "1", *further, str(path))
    return path


def frames(made: Cut) -> npt.NDArray[np.uint8]:
    with av.open(io.BytesIO(made.media)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def made(path: Path, measured: Measured, tmp_path: Path, config: BuildConfig = CONFIG) -> Cut:
    done = cut(path, Span(0.0, None), measured, config, tmp_path)
    assert isinstance(done, Cut), done
    return done


VIDEO = Measured(False, 160, 96, 0.625, "AVC", end=0.625)


def test_the_bars_are_gone_and_all_else_is_there(tmp_path: Path) -> None:
    whole = frames(made(write_video(tmp_path / "v.mp4"), VIDEO, tmp_path))
    assert whole.shape[1:3] == (96, 160) and whole[:, :18].max() < 10
    measured = cropped(VIDEO, "13,20,134,61")
    assert isinstance(measured, Measured)
    found = frames(made(tmp_path / "v.mp4", measured, tmp_path))
    assert found.shape[1:3] == (62, 134) and len(found) == len(whole)
    luma = found.astype(float) @ (0.2126, 0.7152, 0.0722)
    assert luma[:, :, 70:].min() > 225, "white up to the edges, no black line"
    assert luma[:, 2:-2, 2:64].min() > 55, "blue up to the edge"
    edge = np.abs(np.diff(luma[:, 30], axis=1)).argmax(axis=1)
    assert set(edge) <= {66, 67}, "the middle of the box is in the middle"


@pytest.mark.parametrize("rotation", ["90", "270"])
def test_a_crop_is_of_the_picture_as_displayed(rotation: str, tmp_path: Path) -> None:
    """A file turned by its header is cropped after turning: the crop is that of the upright picture."""
    upright = write_video(tmp_path / "up.mp4")
    turn = {"90": "transpose=clock", "270": "transpose=cclock"}[rotation]
    run_ffmpeg("-i", str(upright), "-vf", turn, "-c:v", "libx264", "-crf", "1", str(tmp_path / "side.mp4"))
    shown = {"90": "90", "270": "-90"}[rotation]
    run_ffmpeg("-display_rotation", shown, "-i", str(tmp_path / "side.mp4"), "-c", "copy", str(tmp_path / "turned.mp4"))
    measured = replace(VIDEO, crop=BARS)
    one, other = (frames(made(tmp_path / name, measured, tmp_path)) for name in ("up.mp4", "turned.mp4"))
    assert one.shape == other.shape and np.abs(one.astype(int) - other.astype(int)).mean() < 4


def test_in_training_size_the_crop_is_scaled_to_cover(tmp_path: Path) -> None:
    config = replace(CONFIG, resolution="train", encode=replace(CONFIG.encode, width=64, height=48))
    found = frames(made(write_video(tmp_path / "v.mp4"), replace(VIDEO, crop=BARS), tmp_path, config))
    assert found.shape[1:3] == (48, 64)
    assert (found.astype(float) @ (0.2126, 0.7152, 0.0722))[:, :, 36:].min() > 225


def test_an_image_is_cropped_too(tmp_path: Path) -> None:
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[20:81, 13:147] = 255
    Image.fromarray(picture).save(tmp_path / "i.png")
    image = Measured(True, 160, 96, 0.0, "PNG", crop=BARS)
    done = made(tmp_path / "i.png", image, tmp_path)
    assert np.asarray(Image.open(io.BytesIO(done.media))).min() > 250
    earlier = cut(tmp_path / "i.png", Span(0.0, None), image, CONFIG, tmp_path, schema_version=2)
    assert isinstance(earlier, Cut) and frames(earlier).min() > 245


def test_a_crop_that_is_not_inside_the_picture_is_an_outcome() -> None:
    assert cropped(VIDEO, "") is VIDEO
    whole = cropped(VIDEO, "0,0,160,96")
    assert isinstance(whole, Measured) and whole.kept_size == (160, 96)
    for text in ("0,0,161,96", "1,0,160,96", "0,1,10,96"):
        outcome = cropped(VIDEO, text)
        assert isinstance(outcome, ClipOutcome) and (outcome.outcome, outcome.reason) == ("failed", "bad_crop")


def test_rules_are_about_what_is_kept() -> None:
    facts = ClipFacts(CLIP, replace(VIDEO, crop=replace(BARS, height=40)), CONFIG)
    outcome = size_rule(facts)
    assert outcome and (outcome.reason, outcome.detail) == ("too_low", "cropped to 134×40, below 64×48")
