"""The pictures that a clip is captioned from: the right frames, at the right times, the same bytes every time."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nextscene.common import ffmpeg
from nextscene.common.child_process import ChildResult
from nextscene.common.frame_sampling import evenly_spaced
from nextscene.common.storage import StorageFault
from nextscene.curation.config import BuildConfig
from nextscene.curation.media.extract import expected_frames
from nextscene.curation.media.probe import UNKNOWN_DURATION, Measured, measure
from nextscene.curation.media.seek import Span
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.stages.keyframes import extract_keyframes
from nextscene.judge.api.request import PATCH, Frame
from nextscene.judge.config import ClaudeConfig
from tests.curation.frames import Picture, clip_frames, shown_frames, source_frames
from tests.fakes.claude_api import images
from tests.support import CLIPS, make_video, needs_clips, run_ffmpeg

pytestmark = pytest.mark.slow

CONFIG = BuildConfig(judge="claude")
LEVELS = 20
"""Brightness steps between two frames of a ramp: more than what JPEG, scaling and rounding blur."""


def measured(path: Path) -> Measured:
    with path.open("rb") as file:
        return measure(file)


def seen(
    path: Path, span: Span | None = None, config: BuildConfig = CONFIG, known: Measured | None = None
) -> tuple[Frame, ...]:
    scratch = Path(tempfile.gettempdir()) / "look"
    scratch.mkdir(exist_ok=True)
    found = extract_keyframes(path, span or Span(0.0, None), known or measured(path), config, scratch)
    assert not isinstance(found, ClipOutcome), found
    return found


def ramp(path: Path, frames: int, rate: str, *extra: str) -> Path:
    """A video whose n-th frame is one flat gray, LEVELS apart from its neighbors', over and over."""
    gray = f"color=size=854x480:rate={rate}:color=black,format=yuv420p,geq=lum='30+{LEVELS}*mod(N\\,9)':cb=128:cr=128"
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p", "-color_range", "tv", *extra]
    run_ffmpeg("-f", "lavfi", "-i", gray, "-frames:v", str(frames), *encoding, str(path))
    return path


def brightness(picture: Picture) -> float:
    return float(picture.mean())


def decoded(frame: Frame) -> Picture:
    """Its BT.709 luma, as a small picture."""
    (only,) = clip_frames(frame.jpeg)
    assert only.luma.shape == (frame.height, frame.width)
    return only.picture()


def same(picture: Picture, other: Picture) -> bool:
    """Up to scaling and compression."""
    return float(np.abs(picture - other).mean()) < 6


# ---- which frames ----------------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(1, 100))
@example(81, 8)
@example(2, 8)
@example(1, 1)
def test_places_are_spread_evenly_from_the_first_to_the_last(shown: int, wanted: int) -> None:
    places = evenly_spaced(shown, wanted)
    assert len(places) == min(shown, wanted)
    assert places == sorted(set(places)) and places[0] == 0 and places[-1] <= shown - 1
    if len(places) > 1:
        assert places[-1] == shown - 1
        even = Fraction(shown - 1, len(places) - 1)
        assert all(abs(place - i * even) <= Fraction(1, 2) for i, place in enumerate(places))
        assert places[:0:-1] == sorted(places[1:], reverse=True)


@pytest.mark.parametrize(
    ("frames", "rate", "span"),
    [
        (96, "16", Span(0.0, None)),
        (40, "16", Span(0.0, None)),
        (5, "16", Span(0.0, None)),
        (1, "16", Span(0.0, None)),
        (60, "16", Span(1.25, 1.5)),
        (60, "16", Span(3.0, None)),
    ],
)
def test_the_frames_are_those_of_the_clip_at_the_spread_places_with_their_times(
    tmp_path: Path, frames: int, rate: str, span: Span
) -> None:
    """Frames of the source and of the clip are the same here, so the n-th has a known brightness."""
    path = ramp(tmp_path / "ramp.mp4", frames, rate)
    found = seen(path, span)
    begin = round(span.start * 16)
    length = frames - begin if span.length is None else round(span.length * 16)
    places = evenly_spaced(min(81, length), 8)
    assert [frame.seconds for frame in found] == [place / 16 for place in places]
    wanted = [30 + LEVELS * ((begin + place) % 9) for place in places]
    for frame, level in zip(found, wanted, strict=True):
        assert abs(brightness(decoded(frame)) - level) < LEVELS / 2


def _check_against_the_source(path: Path, start: float, end: float | None, config: BuildConfig = CONFIG) -> None:
    """The frames that timestamps alone say must be shown, covered and cropped as the clip is."""
    known = measured(path)
    span = Span(start, None if end is None else end - start)
    found = seen(path, span, config, known)
    source = source_frames(path, start + 6)
    shown = shown_frames(source, start, end, config.encode.fps, config.encode.max_frames)
    places = evenly_spaced(expected_frames(span, known, config), config.claude.frames)
    assert len(found) == len(places) and abs(len(shown) - 1 - places[-1]) <= 1
    box = (config.encode.width, config.encode.height)
    for frame, place in zip(found, places, strict=True):
        assert frame.seconds == place / config.encode.fps
        assert same(decoded(frame), source[shown[min(place, len(shown) - 1)]].picture(box))


@needs_clips
@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("market_vfr.mp4", 0.0, None),
        ("market_vfr.mp4", 2.3, 4.8),
        ("portrait_coded_shown_landscape.mp4", 0.0, None),
        ("anamorphic_720x480_sar.mp4", 0.0, None),
        ("counter_1080p_10fps.mp4", 0.55, 2.25),
    ],
)
def test_of_awkward_footage_too_they_are_what_the_clip_shows(name: str, start: float, end: float | None) -> None:
    _check_against_the_source(CLIPS / name, start, end)


def test_a_rotated_video_is_seen_upright(tmp_path: Path) -> None:
    upright = make_video(tmp_path / "upright.mp4", 1.0, "480x854")
    rotated = tmp_path / "rotated.mp4"
    run_ffmpeg("-display_rotation", "90", "-i", str(upright), "-c", "copy", str(rotated))
    assert (measured(rotated).width, measured(rotated).height) == (854, 480)
    _check_against_the_source(rotated, 0.0, None)


def test_an_image_is_one_square_picture_at_its_begin(tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=900x600", "-frames:v", "1", str(still))
    (frame,) = seen(still)
    assert (frame.seconds, frame.width, frame.height) == (0.0, 336, 336)
    assert same(decoded(frame), source_frames(still, 1)[0].picture((512, 512)))


def test_a_video_of_unknown_length_gives_its_first_frame(tmp_path: Path) -> None:
    path = ramp(tmp_path / "ramp.mp4", 40, "16")
    (frame,) = seen(path, known=replace(measured(path), duration=UNKNOWN_DURATION))
    assert frame.seconds == 0.0
    assert abs(brightness(decoded(frame)) - 30) < LEVELS / 2


def test_a_video_shorter_than_its_header_says_gives_what_it_has(tmp_path: Path) -> None:
    """Each with its own time still."""
    path = ramp(tmp_path / "ramp.mp4", 40, "16")
    found = seen(path, known=replace(measured(path), duration=5.0, end=5.0))
    places = evenly_spaced(80, 8)
    assert 1 < len(found) < 8
    for frame, place in zip(found, places, strict=False):
        assert frame.seconds == place / 16
        assert abs(brightness(decoded(frame)) - (30 + LEVELS * (place % 9))) < LEVELS / 2


# ---- bytes and sizes -------------------------------------------------------------------------------------------


def test_a_second_look_gives_the_same_bytes(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 2.0)
    first = seen(path)
    assert seen(path) == first
    assert len({frame.jpeg for frame in first}) == 8


def test_a_look_after_one_at_a_longer_clip_has_none_of_its_frames(tmp_path: Path) -> None:
    """Both use the same scratch folder."""
    path = make_video(tmp_path / "a.mp4", 2.0)
    assert len(seen(path)) == 8
    assert len(seen(path, Span(0.0, 0.125))) == 2


@pytest.mark.parametrize("height", [28, 336, 448])
@pytest.mark.parametrize("source", ["854x480", "1280x720", "1000x1000"])
def test_heights_are_multiples_of_a_patch_and_sizes_are_what_the_bytes_say(
    tmp_path: Path, height: int, source: str
) -> None:
    """At 832×480, as clips are by default, the default picture costs 252 tokens."""
    path = make_video(tmp_path / "a.mp4", 0.25, source)
    config = replace(CONFIG, claude=ClaudeConfig(frame_height=height, frames=2))
    for frame in seen(path, config=config):
        assert (frame.width, frame.height) == images.size(frame.jpeg)
        assert frame.height == height and height % PATCH == 0
        assert abs(frame.width - height * 832 / 480) <= 1
        assert frame.tokens == math.ceil(frame.width / 28) * math.ceil(frame.height / 28)
        assert height != ClaudeConfig().frame_height or frame.tokens == 252


@pytest.mark.parametrize("wanted", [1, 2, 30])
def test_as_many_frames_as_are_wanted_and_there(tmp_path: Path, wanted: int) -> None:
    path = make_video(tmp_path / "a.mp4", 1.0)
    config = replace(CONFIG, claude=ClaudeConfig(frames=wanted))
    assert len(seen(path, config=config)) == min(16, wanted)


# ---- what goes wrong -------------------------------------------------------------------------------------------


def test_an_undecodable_clip_ends_with_the_same_evidence_every_time(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 0.5)
    known, data = measured(path), path.read_bytes()
    at = data.index(b"mdat") + 4
    path.write_bytes(data[:at] + bytes(len(data) - at))
    ends = {extract_keyframes(path, Span(0.0, None), known, CONFIG, tmp_path) for _ in range(2)}
    assert ends == {ClipOutcome("rejected", "unreadable", "Invalid data found when processing input")}


def _fake(code: int | None, stderr: str) -> Callable[..., ChildResult]:
    return lambda line, limits: ChildResult(code, stderr, 0.0)


@pytest.mark.parametrize(
    ("code", "stderr", "reason"),
    [
        (1, "what it said", "cut_error"),
        (-11, "what it said", "cut_crashed"),
        (None, "what it said", "cut_timeout"),
        (0, "", "short_decode"),
    ],
)
def test_the_decoders_end_is_the_clips_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, stderr: str, reason: str
) -> None:
    monkeypatch.setattr(ffmpeg, "run", _fake(code, stderr))
    end = extract_keyframes(
        tmp_path / "a.mp4", Span(0.0, None), Measured(False, 854, 480, 1.0, "AVC"), CONFIG, tmp_path
    )
    assert isinstance(end, ClipOutcome)
    assert (end.outcome, end.reason) == ("failed", reason) and stderr in end.detail


def test_a_full_scratch_disk_is_not_the_clips_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "run", _fake(1, "av_interleaved_write_frame(): No space left on device"))
    with pytest.raises(StorageFault, match="scratch"):
        extract_keyframes(tmp_path / "a.mp4", Span(0.0, None), Measured(False, 854, 480, 1.0, "AVC"), CONFIG, tmp_path)
