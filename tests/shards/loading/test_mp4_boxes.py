"""What an mp4 promises: counted as ffmpeg wrote it, and never more than it is worth."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.shards.loading.decode import DamagedVideo, decode
from nextscene.shards.loading.mp4_boxes import samples_promised
from tests.shards.clips import encode, ffmpeg
from tests.shards.loading.test_decode import SIZE, room


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def promising(samples: int, table: bytes = b"stsz") -> bytes:
    """A movie of a few bytes whose samples are said to be of one size, and so many."""
    content = struct.pack(">III", 0, 1, samples)
    for kind in (table, b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        content = box(kind, content)
    return box(b"ftyp", b"isom" + bytes(4) + b"isom") + content


@pytest.mark.parametrize("frames", [1, 9, 25, 81])
def test_the_frames_of_a_movie_and_of_its_fragments_are_counted(
    tmp_path_factory: pytest.TempPathFactory, frames: int
) -> None:
    fragmented = encode(40, frames)
    path = tmp_path_factory.mktemp("boxes") / "plain.mp4"
    ffmpeg("-i", "-", "-c", "copy", "-movflags", "+faststart", str(path), data=fragmented)
    assert samples_promised(fragmented) == samples_promised(path.read_bytes()) == frames


def test_the_sizes_of_large_boxes_stand_behind_their_names() -> None:
    table = struct.pack(">III", 0, 1, 7)
    large = struct.pack(">I4sQ", 1, b"stsz", 16 + len(table)) + table
    assert samples_promised(box(b"moov", large + box(b"stz2", table))) == 14


@pytest.mark.parametrize("table", [b"stsz", b"stz2"])
def test_a_file_that_promises_more_than_it_could_hold_is_not_opened(table: bytes) -> None:
    bomb = promising(50_000_000, table)
    assert samples_promised(bomb) == 50_000_000
    with pytest.raises(DamagedVideo, match="promises 50,000,000 frames"):
        decode(bomb, SIZE, room(1))


@given(st.binary(max_size=200))
def test_whatever_the_bytes_it_comes_to_an_end(data: bytes) -> None:
    assert samples_promised(data) >= 0
    assert samples_promised(box(b"moov", data)) >= 0


def test_boxes_in_boxes_without_end_are_not_followed() -> None:
    nested = b""
    for _ in range(5000):
        nested = box(b"moov", nested)
    assert samples_promised(nested) == 0
