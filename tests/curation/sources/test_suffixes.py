"""Every accepted suffix works: a real file of each, from a folder, a manifest and a tar, is planned and kept."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from nextscene.curation.ledger import Row
from nextscene.curation.sources.clip import IMAGE_SUFFIXES, MEDIA_SUFFIXES, VIDEO_SUFFIXES
from tests.support import SMALL, assert_conserved, build_inline, ledger, run_ffmpeg, write_csv

pytestmark = pytest.mark.slow

MPEG_4 = ("-c:v", "mpeg4", "-q:v", "4")
MPEG_2 = ("-c:v", "mpeg2video", "-q:v", "4")
H_264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
THEORA = ("-c:v", "libtheora", "-q:v", "6")
AS: dict[str, tuple[str, ...]] = {
    ".3g2": (*H_264, "-f", "3g2"),
    ".3gp": (*H_264, "-f", "3gp"),
    ".asf": ("-c:v", "wmv2", "-q:v", "4", "-f", "asf"),
    ".avi": (*MPEG_4, "-f", "avi"),
    ".divx": (*MPEG_4, "-f", "avi"),
    ".f4v": (*H_264, "-f", "f4v"),
    ".flv": (*H_264, "-f", "flv"),
    ".m2t": (*MPEG_2, "-f", "mpegts"),
    ".m2ts": (*H_264, "-f", "mpegts"),
    ".m4v": (*H_264, "-f", "mp4"),
    ".mkv": (*H_264, "-f", "matroska"),
    ".mov": (*H_264, "-f", "mov"),
    ".mp4": (*H_264, "-f", "mp4"),
    ".mpe": (*MPEG_2, "-f", "mpeg"),
    ".mpeg": (*MPEG_2, "-f", "mpeg"),
    ".mpg": (*MPEG_2, "-f", "mpeg"),
    ".mts": (*H_264, "-f", "mpegts"),
    ".mxf": (*MPEG_2, "-f", "mxf"),
    ".ogm": (*THEORA, "-f", "ogg"),
    ".ogv": (*THEORA, "-f", "ogv"),
    ".qt": (*H_264, "-f", "mov"),
    ".ts": (*H_264, "-f", "mpegts"),
    ".vob": (*MPEG_2, "-f", "vob"),
    ".wmv": ("-c:v", "wmv2", "-q:v", "4", "-f", "asf"),
    ".webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-f", "webm"),
}
IMAGE = {
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".jfif": "JPEG",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
FROM = ("folder", "manifest", "tar")


@dataclass(frozen=True)
class Made:
    """The rows of one dataset of them all, by the source that names each clip and its suffix."""

    rows: dict[tuple[str, str], Row]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One build of a folder and a tar in it, one of a manifest."""
    folder = tmp_path_factory.mktemp("suffixes")
    source = folder / "in"
    source.mkdir()
    for suffix, arguments in AS.items():
        run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=854x480:rate=25:duration=0.4", *arguments, f"{source}/v{suffix}")
    for suffix, form in IMAGE.items():
        Image.radial_gradient("L").resize((520, 520)).convert("RGB").save(source / f"i{suffix}", form)
    names = sorted(path.name for path in source.iterdir())
    with tarfile.open(source / "all.tar", "w") as tar:
        for place, name in enumerate(names):
            (source / f"{name}.txt").write_text(f"of {name}")
            tar.add(source / name, f"{place:02d}{name}")
            tar.add(source / f"{name}.txt", f"{place:02d}{Path(name).stem}.txt")
    write_csv(folder / "clips.csv", [{"video": f"in/{name}", "caption": f"of {name}"} for name in names])
    rows: dict[tuple[str, str], Row] = {}
    for place in (source, folder / "clips.csv"):
        out = folder / f"out-{place.name}"
        build_inline(place, out, SMALL)
        assert_conserved(out)
        for row in ledger(out):
            kind = "manifest" if place.suffix else "tar" if row.source.startswith("all.tar/") else "folder"
            rows[kind, Path(row.source).suffix] = row
    return Made(rows)


def test_there_is_a_file_of_each() -> None:
    assert set(AS) == VIDEO_SUFFIXES and set(IMAGE) == IMAGE_SUFFIXES


def test_each_is_planned_from_everywhere_with_its_caption(made: Made) -> None:
    assert set(made.rows) == {(kind, suffix) for kind in FROM for suffix in MEDIA_SUFFIXES}
    assert [row.caption for (_, suffix), row in made.rows.items() if not row.caption.endswith(suffix)] == []


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_a_video_of_each_suffix_is_kept(made: Made, suffix: str) -> None:
    ends = {kind: made.rows[kind, suffix] for kind in FROM}
    assert {kind: (row.outcome, row.reason, row.detail) for kind, row in ends.items()} == dict.fromkeys(
        FROM, ("kept", "", "")
    )
    assert {row.frames for row in ends.values()} <= {6, 7}
    assert {row.mp4_sha256 for row in ends.values()} == {ends["folder"].mp4_sha256}


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_an_image_of_each_suffix_is_kept(made: Made, suffix: str) -> None:
    ends = {kind: made.rows[kind, suffix] for kind in FROM}
    assert {kind: (row.outcome, row.reason, row.detail) for kind, row in ends.items()} == dict.fromkeys(
        FROM, ("kept", "", "")
    )
    assert {(row.frames, row.width, row.height) for row in ends.values()} == {(1, 512, 512)}
