"""A sample of `python -m tests.colors`, one or two cases of each kind, and what the captioning judge is shown."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nextscene.curation.config import BuildConfig
from nextscene.curation.media.probe import measure
from nextscene.curation.stages.cut import Span
from nextscene.curation.stages.keyframes import extract_keyframes
from tests.colors.__main__ import chosen
from tests.colors.cases import Case
from tests.colors.conversion import Tags, encoded, shown, signal_of
from tests.colors.patches import in_clip
from tests.colors.running import CONFIG, Result, results
from tests.support import build_inline, ledger, write_csv

pytestmark = pytest.mark.slow

SAMPLE = [
    "matrix-h264-smpte170m-limited.mp4",
    "matrix-h264-bt709-full.mkv",
    "matrix-hevc-bt2020nc-limited.ts",
    "untagged-h264-sd.mp4",
    "untagged-h264-hd.ts",
    "untagged-only-2020-sd.mp4",
    "primaries-h264-smpte432.mp4",
    "mjpeg-mjpeg-420-1280.avi",
    "rgb-x264rgb-hd.mp4",
    "alpha-qtrle.mov",
    "pq-hevc-1000.mp4",
    "pq-hevc-cll-400-4000.mkv",
    "hlg-hevc-hlg.mp4",
    "image-1280.jpg",
    "image-p3.jpg",
    "image-exif-6.jpg",
    "image-rgba.png",
    "image-p3-alpha.png",
    "image-lossless.webp",
]
SHOWN_TO_THE_JUDGE = ["pq-hevc-1000.mp4", "untagged-h264-hd.ts"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("colors")


@pytest.fixture(scope="module")
def sampled() -> dict[str, Case]:
    cases = {case.file: case for case in chosen([])}
    return {name: cases[name] for name in SAMPLE}


@pytest.fixture(scope="module")
def found(folder: Path, sampled: dict[str, Case]) -> dict[str, Result]:
    return {result.case.file: result for result in results(list(sampled.values()), folder)}


@pytest.mark.parametrize("name", SAMPLE)
def test_a_clip_shows_the_colors_of_its_source_and_is_tagged_as_bt709(found: dict[str, Result], name: str) -> None:
    assert found[name].verdict == "right", str(found[name])


@pytest.mark.parametrize("name", SHOWN_TO_THE_JUDGE)
def test_the_captioning_judge_is_shown_the_same_colors(
    found: dict[str, Result], sampled: dict[str, Case], folder: Path, tmp_path: Path, name: str
) -> None:
    case = sampled[name]
    with (folder / name).open("rb") as file:
        measured = measure(file)
    frames = extract_keyframes(folder / name, Span(0.0, None), measured, BuildConfig(judge="claude"), tmp_path)
    assert isinstance(frames, tuple), frames
    image = Image.open(io.BytesIO(frames[0].jpeg))
    pixels = np.asarray(image.convert("RGB"), np.float64)
    for place, wanted in zip(case.where, case.expected, strict=True):
        at = in_clip(place, case.size, image.size)
        if at is not None:
            column, row = round(at[0] * image.width), round(at[1] * image.height)
            got = pixels[row - 5 : row + 5, column - 5 : column + 5].mean(axis=(0, 1))
            assert np.abs(got - wanted).max() <= case.tolerance, f"{wanted} is shown as {got}"


def test_hdr_is_rejected_where_the_rules_say_so(found: dict[str, Result], folder: Path, tmp_path: Path) -> None:
    hdr = ["pq-hevc-1000.mp4", "hlg-hevc-hlg.mp4"]
    sdr = ["untagged-only-2020-sd.mp4", "primaries-h264-smpte432.mp4"]
    source = write_csv(folder / "hdr.csv", [{"video": name, "caption": "patches"} for name in (*hdr, *sdr)])
    config = replace(CONFIG, rules=replace(CONFIG.rules, hdr="reject"))
    build_inline(source, tmp_path / "out", config)
    ends = {row.source: (row.outcome, row.reason) for row in ledger(tmp_path / "out", config)}
    assert ends == dict.fromkeys(hdr, ("rejected", "hdr")) | dict.fromkeys(sdr, ("kept", ""))


def test_the_conversion_written_here_agrees_with_published_numbers() -> None:
    # BT.2408: reference white, 203 nits, is a signal of 58 % in PQ and 75 % in HLG.
    white = np.ones((1, 3))
    assert signal_of(white, "smpte2084")[0, 0] == pytest.approx(0.58, abs=0.005)
    assert signal_of(white, "arib-std-b67")[0, 0] == pytest.approx(0.75, abs=0.005)
    # A mid-tone below the knee stays itself; the source's peak becomes white.
    tags = Tags("bt2020nc", "bt2020", "smpte2084")
    peak = signal_of(white * 1000 / 203, "smpte2084")
    assert shown(peak, tags) == pytest.approx(1.0, abs=1e-6)
    # SMPTE color bars of 75 % in BT.601: yellow is (162, 44, 142) (ITU-R BT.801).
    assert encoded(np.array([[0.75, 0.75, 0]]), "smpte170m", full=False).tolist() == [[162, 44, 142]]
