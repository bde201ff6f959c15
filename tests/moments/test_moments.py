"""A sample of the campaign, and the oracle itself: what it wants is written here by hand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nextscene.curation.ledger import Row
from tests.moments import matrix
from tests.moments.campaign import MOVED, NO_CLIP, RIGHT, WRONG, Verdict, compare, judge
from tests.moments.files import EXACT, MILLISECONDS, Maker, Stream, Video
from tests.moments.frames import CELL, HEIGHT, WIDTH, in_cells, number_of, numbered
from tests.moments.oracle import Decoded, Span, wanted
from tests.support import run_ffmpeg

_SPANS = (Span(1500, 2500), Span(6000, 7000), Span(3337, 3737))
_CUT = (Span(0, 500), Span(0, 4000), Span(3000, 3500), Span(3410, 4000))
_LATE = (Span(200, 800), Span(1510, 2010))
_H264 = matrix.x264(96, frames=192)
_OPEN = matrix.x264(48, "open", "bframes=3:open-gop=1", frames=120)
_LONG = Stream("theora", matrix.ONE, "long", matrix.THEORA[0].encoding, frames=130, rate="10")
_MPEG2 = Stream("mpeg2video", 96, "open", matrix.MPEG2[3].encoding, 192)
SAMPLE = (
    *(Video(container, _H264, spans=_SPANS) for container in (matrix.TS, matrix.M2TS, matrix.MP4, matrix.AVI)),
    *(Video(container, _H264, spans=_SPANS[:2]) for container in (matrix.MKV_NO_CUES, matrix.FLV, matrix.FMP4)),
    *(Video(container, _MPEG2, spans=_SPANS) for container in (matrix.MPG, matrix.TS)),
    Video(matrix.VOB, _MPEG2, spans=_SPANS[:1]),
    Video(matrix.MXF, _MPEG2, spans=(Span(4030, 4530),)),
    *(Video(container, _OPEN, spans=(Span(3930, 4430),)) for container in (matrix.MP4, matrix.FMP4)),
    Video(matrix.OGV, _LONG, spans=(Span(12300, 12800),)),
    Video(matrix.TS, _H264, "cut_head", cut_head=0.12, spans=_CUT),
    Video(matrix.TS, _H264, "late_video", before=("-itsoffset", "1"), sound=(), spans=(*_LATE, Span(0, 1500))),
    Video(matrix.MP4, _H264, "late_video", before=("-itsoffset", "1"), sound=(), spans=(*_LATE, Span(8200, 8900))),
)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[Verdict]:
    """All the sample's clips, cut in one run."""
    folder = tmp_path_factory.mktemp("moments")
    return judge(Maker(folder / "videos"), SAMPLE, folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("video", SAMPLE, ids=lambda video: video.name)
def test_every_slot_shows_its_frame(verdicts: list[Verdict], video: Video) -> None:
    own = [verdict for verdict in verdicts if verdict.video.name == video.name]
    assert len(own) == len(video.spans)
    assert [f"{verdict.span}: {verdict.detail}" for verdict in own if verdict.kind == WRONG] == []
    if video.container.rounding == EXACT:
        assert MOVED not in [verdict.kind for verdict in own]


@pytest.mark.parametrize("number", [0, 1, 95, 2048, 4095])
def test_a_frame_says_its_number_whole_and_cropped(number: int) -> None:
    (frame,) = numbered(1, number)
    luma = np.frombuffer(frame, np.uint8)[: WIDTH * HEIGHT].reshape(HEIGHT, WIDTH)
    assert number_of(in_cells(luma)) == number
    assert number_of(in_cells(luma[:, 2 * CELL : -2 * CELL])) == number


def test_two_frames_in_one_cannot_be_read() -> None:
    one, other = (np.frombuffer(frame, np.uint8)[: WIDTH * HEIGHT].reshape(HEIGHT, WIDTH) for frame in numbered(2, 7))
    assert number_of(in_cells(one // 2 + other // 2)) is None


def _regular(count: int = 288, first: Fraction = Fraction(0), fps: int = 24) -> Decoded:
    times = tuple(first + Fraction(number, fps) for number in range(count))
    return Decoded(times, tuple(range(count)), times[-1] + Fraction(1, fps))


@pytest.mark.parametrize(
    ("span", "first_slots"),
    [
        (Span(), [0, 2, 3, 5, 6]),
        (Span(1500, 2500), [36, 38, 39, 41, 42]),
        # 36 is at 1.5 s, 37 at 1.542 s: later than 1.51 s and half a slot.
        (Span(1510, 2510), [36, 38, 39, 41, 42]),
        (Span(1520, 2520), [37, 38, 40, 41, 43]),
    ],
    ids=str,
)
def test_what_the_law_wants_of_24_frames_a_second(span: Span, first_slots: list[int]) -> None:
    slots = wanted(_regular(), span, EXACT).slots
    assert [slot[0] for slot in slots[:5]] == first_slots
    assert len(slots) == (81 if span.end is None else 16)


def test_without_a_start_the_first_frame_is_the_origin() -> None:
    late = _regular(first=Fraction(1))
    assert [slot[0] for slot in wanted(late, Span(), EXACT).slots[:5]] == [0, 2, 3, 5, 6]
    assert wanted(late, Span(0, 2000), EXACT).most == 16
    assert wanted(late, Span(0, 1000), EXACT).why_none
    assert wanted(late, Span(500, 1500), EXACT).why_none
    assert not wanted(late, Span(980, 1980), EXACT).why_none  # nearer to its first slot than to any other


def test_only_a_tie_may_move() -> None:
    quarter = Decoded((Fraction(0), Fraction(1, 32), Fraction(1, 4)), (0, 1, 2), Fraction(1))
    assert [sorted(slot) for slot in wanted(quarter, Span(), EXACT).slots[:3]] == [[0, 1], [1], [1]]
    near = Decoded((Fraction(0), Fraction(1, 32) + Fraction(1, 1500)), (0, 1), Fraction(1))
    assert [wanted(near, Span(), rounding).slots[0] for rounding in (EXACT, MILLISECONDS)] == [(0,), (0, 1)]


def test_a_clip_may_be_short_only_where_the_file_ends() -> None:
    aim = wanted(_regular(24), Span(500, 2500), EXACT)
    assert (aim.least, aim.most, aim.may_end_short) == (7, 9, True)
    assert not wanted(_regular(), Span(500, 2500), EXACT).may_end_short
    assert not wanted(_regular(), Span(500, 9500), EXACT).may_end_short
    assert not wanted(_regular(), Span(11000, None), EXACT).may_end_short
    assert wanted(_regular(first=Fraction(1)), Span(0, 2000), EXACT).may_end_short
    assert wanted(_regular(24), Span(1500, 2500), EXACT).why_none


def test_a_frozen_clip_is_wrong(tmp_path: Path) -> None:
    video = Video(matrix.MP4, matrix.H264[0])
    right = [*range(36, 60)]
    assert _verdict(tmp_path, video, [36, 38, 39, 41, 42, 44, 45, 47]) == RIGHT
    assert _verdict(tmp_path, video, [36, 38, 39, 39, 39, 39, 39, 39]) == WRONG
    assert _verdict(tmp_path, video, [37, 38, 39, 41, 42, 44, 45, 47]) == WRONG
    assert _verdict(tmp_path, video, [36, 38, 39, 41, 42]) == WRONG
    assert _verdict(tmp_path, video, right[:8]) == WRONG


def _verdict(folder: Path, video: Video, numbers: list[int]) -> str:
    """Of a clip that shows these frames for the span 1.5–2.0."""
    raw, clip = folder / "clip.yuv", folder / "clip.mp4"
    raw.write_bytes(b"".join(frame for number in numbers for frame in numbered(1, number)))
    picture = ["-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", f"{WIDTH}x{HEIGHT}", "-framerate", "16"]
    run_ffmpeg(*picture, "-i", str(raw), "-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", str(clip))
    row = _row("kept", frames=len(numbers))
    return compare(_regular(), Span(1500, 2000), video, row, clip.read_bytes())[0]


def test_what_is_not_kept_must_have_a_reason() -> None:
    video, late = Video(matrix.MP4, matrix.H264[0]), _regular(first=Fraction(1))
    short, outside = _row("failed", "short_decode"), _row("rejected", "span_outside")
    assert compare(late, Span(500, 1500), video, short, None)[0] == NO_CLIP
    assert compare(late, Span(500, 1500), video, outside, None)[0] == WRONG
    assert compare(late, Span(12000, 14000), video, outside, None)[0] == NO_CLIP
    assert compare(late, Span(2000, 3000), video, short, None)[0] == WRONG


def _row(outcome: str, reason: str = "", frames: int = -1) -> Row:
    return Row(
        position=0,
        clip_id="",
        split="train",
        unit=0,
        shard=0,
        source="",
        start_ms=0,
        end_ms=0,
        outcome=outcome,
        reason=reason,
        frames=frames,
    )
