"""Decoding: the right frames in the right colors at the right size, by every library that is there."""

from __future__ import annotations

import errno
import io
import sys
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from nextscene.shards.loading.decode import Backend, DamagedVideo, NoDecoder, Pixels, decode, decode_image
from tests.shards.clips import HEIGHT, WIDTH, encode, ffmpeg, lossless, shades

SIZE = (WIDTH, HEIGHT)


def usable(backend: Backend) -> str:
    """Why a library cannot decode here, or ""."""
    try:
        decode(encode(100, 1), SIZE, room(1), backend)
    except NoDecoder as reason:
        return str(reason)
    return ""


def room(frames: int, width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    return np.zeros((frames, height, width, 3), np.uint8)


BACKENDS = [
    "pyav",
    *(pytest.param("decord", marks=pytest.mark.skipif(bool(reason), reason=reason)) for reason in [usable("decord")]),
]
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def moving(width: int, height: int, frames: int) -> bytes:
    """A picture full of edges and colors."""
    source = f"testsrc2=size={width}x{height}:rate=16,format=gbrp,scale=out_color_matrix=bt709:out_range=tv"
    return ffmpeg("-f", "lavfi", "-i", f"{source},format=yuv420p", "-frames:v", str(frames), *lossless())


def by_ffmpeg(mp4: bytes, frames: int, width: int, height: int, *filters: str) -> Pixels:
    """Ffmpeg's own reading, by the BT.709 matrix."""
    colors = "scale=in_color_matrix=bt709:in_range=tv:out_range=pc:flags=bicubic+accurate_rnd+full_chroma_int"
    line = ["-i", "-", "-vf", ",".join([*filters, colors, "format=rgb24"]), "-f", "rawvideo", "-"]
    pixels = np.frombuffer(ffmpeg(*line, data=mp4), np.uint8)
    return pixels.reshape(-1, height, width, 3)[:frames]


@each_backend
@pytest.mark.parametrize("frames", [1, 9, 17, 25])
def test_the_first_frames_come_in_order(backend: Backend, frames: int) -> None:
    out = room(frames)
    decode(encode(40, 25), SIZE, out, backend)
    assert shades(out) == [40 + frame for frame in range(frames)]


@each_backend
@pytest.mark.parametrize("name", ["red", "lime", "blue", "white", "black", "gray", "orange", "0x123456", "0xc0ffee"])
def test_colors_are_those_of_bt_709_and_full_range(backend: Backend, name: str) -> None:
    """By the closed form: limited-range Y'CbCr of the picture, back to R'G'B'."""
    source = f"color={name}:s={WIDTH}x{HEIGHT}:r=16,format=gbrp,scale=out_color_matrix=bt709:out_range=tv"
    mp4 = ffmpeg("-f", "lavfi", "-i", f"{source},format=yuv420p", "-frames:v", "1", *lossless())
    planes = np.frombuffer(ffmpeg("-i", "-", "-f", "rawvideo", "-", data=mp4), np.uint8).astype(float)
    y, u, v = planes[0], planes[WIDTH * HEIGHT], planes[-1]
    luma, blue, red = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    r, b = luma + 2 * (1 - 0.2126) * red, luma + 2 * (1 - 0.0722) * blue
    wanted = np.clip([r, (luma - 0.2126 * r - 0.0722 * b) / 0.7152, b], 0, 1) * 255
    out = room(1)
    decode(mp4, SIZE, out, backend)
    assert np.abs(out[0] - wanted).max() <= 2


@each_backend
def test_pictures_are_those_that_ffmpeg_shows(backend: Backend) -> None:
    mp4 = moving(160, 96, 9)
    out = room(9, 160, 96)
    decode(mp4, (160, 96), out, backend)
    difference = np.abs(out.astype(int) - by_ffmpeg(mp4, 9, 160, 96))
    assert np.median(difference) <= 1
    assert difference.mean() < 6  # at edges, whose chroma each library interpolates in its own way


@each_backend
@pytest.mark.parametrize(("width", "height"), [(80, 48), (160, 48), (80, 96), (200, 120), (100, 100), (33, 65)])
def test_a_clip_of_another_size_covers_the_target_and_is_cut_to_its_center(
    backend: Backend, width: int, height: int
) -> None:
    mp4 = moving(160, 96, 3)
    out = room(3, width, height)
    decode(mp4, (160, 96), out, backend)
    covering = f"scale=w='max({width},ceil({height}*iw/ih))':h='max({height},ceil({width}*ih/iw))':flags=bicubic"
    wanted = by_ffmpeg(mp4, 3, width, height, covering, f"crop={width}:{height}:exact=1")
    difference = np.abs(out.astype(int) - wanted)
    assert difference.mean() < 10
    for beside in (-3, 3):
        assert difference.mean() < np.abs(np.roll(out, beside, axis=2).astype(int) - wanted).mean() / 2


@each_backend
def test_too_few_frames_are_told(backend: Backend) -> None:
    with pytest.raises(DamagedVideo, match=r"\d+ frames"):
        decode(encode(40, 8), SIZE, room(9), backend)


@each_backend
def test_another_size_than_the_index_says_is_told(backend: Backend) -> None:
    with pytest.raises(DamagedVideo, match="64×48, not 32×48"):
        decode(encode(40, 9), (32, 48), room(9), backend)


@each_backend
@pytest.mark.parametrize("mp4", [b"", b"x" * 1000, b"\0" * 1000], ids=["empty", "text", "zeros"])
def test_what_is_no_video_is_told_on_one_line(backend: Backend, mp4: bytes) -> None:
    with pytest.raises(DamagedVideo) as told:
        decode(mp4, SIZE, room(1), backend)
    assert "\n" not in str(told.value)


@each_backend
def test_a_video_cut_short_is_told(backend: Backend) -> None:
    whole = moving(160, 96, 17)
    with pytest.raises(DamagedVideo):
        decode(whole[: len(whole) // 2], (160, 96), room(17, 160, 96), backend)


def test_a_stream_far_larger_than_it_says_is_not_decoded() -> None:
    with pytest.raises(DamagedVideo):
        decode(moving(640, 480, 2), SIZE, room(2))


def test_a_library_that_is_not_there_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(NoDecoder, match=r"decord cannot be loaded .*decode with 'pyav'"):
        decode(encode(40, 1), SIZE, room(1), "decord")


@pytest.mark.parametrize(
    "fault", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), OSError(errno.EMFILE, "x")]
)
def test_a_fault_of_the_machine_is_not_the_video_s(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(type(fault)):
        decode(encode(40, 9), SIZE, room(9))


def test_an_error_without_a_message_is_told_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(DamagedVideo, match="pyav fails after 0 frames: RuntimeError"):
        decode(encode(40, 9), SIZE, room(9))


# ---- images --------------------------------------------------------------------------------------------------------


def jpeg(size: tuple[int, int] = SIZE, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def test_the_pixels_of_an_image_are_those_that_ffmpeg_shows() -> None:
    """Libavcodec's decoder is another one than Pillow's: what they round differently is within a level or two."""
    data, out = jpeg(subsampling="4:4:4"), room(1)
    decode_image(data, SIZE, out)
    with av.open(io.BytesIO(data)) as container:
        (frame,) = container.decode(video=0)
        theirs = frame.to_ndarray(format="rgb24")
    assert np.abs(out[0].astype(int) - theirs).max() <= 6
    assert np.abs(out[0].astype(int) - theirs).mean() < 1


def test_an_image_of_another_size_is_scaled_and_cropped_as_a_video_is() -> None:
    data, out = jpeg((2 * WIDTH, WIDTH)), room(1, WIDTH // 2, WIDTH // 2)
    decode_image(data, (2 * WIDTH, WIDTH), out)
    whole = Image.open(io.BytesIO(data)).resize((WIDTH, WIDTH // 2), Image.Resampling.BICUBIC)
    middle = np.asarray(whole)[:, WIDTH // 4 : -(WIDTH // 4)]
    assert np.abs(out[0].astype(int) - middle).mean() < 8


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Pillow fails after 0 frames: cannot identify image file"),
        (b"x" * 1000, "Pillow fails after 0 frames: cannot identify image file"),
        (jpeg()[:-200], "Pillow fails after 0 frames: .*truncated"),
        (jpeg((WIDTH + 8, HEIGHT)), f"the image is {WIDTH + 8}×{HEIGHT} RGB, not {WIDTH}×{HEIGHT} RGB"),
        (jpeg(mode="L"), f"the image is {WIDTH}×{HEIGHT} L, not"),
        (jpeg(mode="CMYK"), f"the image is {WIDTH}×{HEIGHT} CMYK, not"),
    ],
    ids=["empty", "text", "truncated", "other size", "gray", "cmyk"],
)
def test_what_is_not_the_image_of_its_record_is_damaged(data: bytes, why: str) -> None:
    with pytest.raises(DamagedVideo, match=why):
        decode_image(data, SIZE, room(1))


def test_an_image_whose_header_claims_more_than_its_record_takes_no_memory() -> None:
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (65_000).to_bytes(2) * 2
    with pytest.raises(DamagedVideo, match=r"65000×65000|exceeds limit"):
        decode_image(bytes(data), SIZE, room(1))
