"""A sample of `python -m tests.damage`: each kind of damage once, and some of the healthy files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.damage.__main__ import BAD, damaged_videos
from tests.damage.damaging import packets
from tests.damage.footage import FILES, encode, frames, psnr
from tests.damage.healthy import false_alarms
from tests.damage.images import damaged_images
from tests.damage.oracle import gaps, told

pytestmark = pytest.mark.slow

SAMPLE = {
    "h264.ts": ("head cut at a packet", "20 packets lost"),
    "h264.mp4": ("truncated at 60 %", "1 % zeroed"),
    "mpeg4.mp4": ("10 bits flipped",),
    "vp9.webm": ("10 % zeroed",),
}
HEALTHY = ("delayed_start.mp4", "open-gop-h264.mp4", "joined-37-open-gop-hevc.ts", "damaged-sound.mkv")


@pytest.mark.parametrize("name", SAMPLE)
def test_damage_that_a_strict_decoder_tells_is_found(name: str, tmp_path: Path) -> None:
    lines = damaged_videos(name, tmp_path, SAMPLE[name])
    assert [line for line in lines if line[0] in BAD] == []
    assert any(word == "found" for word, _, _ in lines)


@pytest.mark.parametrize("name", ["progressive.jpg"])
def test_an_image_that_cannot_be_loaded_wholly_is_found(name: str, tmp_path: Path) -> None:
    lines = damaged_images(name, tmp_path)
    assert [line for line in lines if line[0] in BAD] == []


def test_healthy_files_are_not_called_damaged(tmp_path: Path) -> None:
    lines = false_alarms(tmp_path, HEALTHY)
    assert len(lines) >= len(HEALTHY) - 1
    assert [line for line in lines if line[0] != "right"] == []


def test_the_oracle_tells_a_lost_packet_and_nothing_of_a_healthy_stream(tmp_path: Path) -> None:
    path = encode(tmp_path / "whole.ts", FILES["mpeg2.ts"])
    assert told(path).faults == []
    assert told(path).frames == len(frames())
    these = packets(path.read_bytes())
    video = [i for i, packet in enumerate(these) if packet[1] & 0x1F == 1 and packet[2] == 0]
    assert [what for _, what in gaps(b"".join(these[: video[50]] + these[video[50] + 1 :]))] != []


def test_every_frame_of_the_footage_is_unlike_its_neighbors() -> None:
    footage = frames()
    assert max(psnr(one, other) for one, other in pairwise(footage)) < 20
