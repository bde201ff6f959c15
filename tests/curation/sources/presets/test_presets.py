"""Public data sets are read as they are downloaded, by their presets."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nextscene import ClipDataset
from nextscene.common.storage import Storage
from nextscene.curation.config import EncodeConfig, Rules
from nextscene.curation.sources import SkippedFiles, Source
from nextscene.curation.sources.presets import PRESETS, likely_presets, preset
from tests.curation.media.test_crop import BARS, write_video
from tests.curation.sources.presets.public_sets import KEPT, SETS, Videos
from tests.support import SMALL, assert_conserved, assert_same_clips, build_inline, ledger

CONFIG = replace(
    SMALL,
    rules=Rules(min_width=64, min_height=48, min_image_side=64),
    encode=EncodeConfig(width=64, height=48, image_side=64),
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    return Videos(tmp_path_factory.mktemp("videos"))


@pytest.mark.parametrize("name", SETS)
def test_a_public_set_is_built_as_it_is_downloaded(name: str, videos: Videos, tmp_path: Path) -> None:
    expected = SETS[name](tmp_path / "set", videos)
    build_inline(f"{name}:{tmp_path / 'set'}", tmp_path / "out", CONFIG)
    found: dict[str, tuple[str, str, str]] = {}
    for row in ledger(tmp_path / "out", CONFIG):
        again = row.source if row.source not in found else f"{row.source} again"
        found[again] = row.outcome, row.reason, row.caption if row.outcome == KEPT else ""
    assert found == expected
    assert_conserved(tmp_path / "out", CONFIG)
    assert likely_presets(Storage.at(tmp_path / "set")) in ([name], ["openvid-hd", "openvid"])


def _unpacked(root: Path) -> None:
    """Unpack the archives of a set in their places, as its users do, and delete them; leave damaged ones."""
    for first in sorted([*root.rglob("*_partaa"), *root.rglob("*.split.000")]):
        pieces = sorted(first.parent.glob(f"{first.name[:-2]}*" if first.name.endswith("aa") else f"{first.stem}.*"))
        whole = first.parent / (f"{first.name}.zip" if first.name.endswith("aa") else first.name.partition(".split")[0])
        data = b"".join(piece.read_bytes() for piece in pieces)
        for piece in pieces:
            piece.unlink()
        whole.write_bytes(data)
    for archive in sorted([*root.rglob("*.zip"), *root.rglob("*.tar")]):
        folder = root / "video_folder" if "OpenVid" in archive.name else archive.with_suffix("")
        if "mask" not in str(archive.parent) and (zipfile.is_zipfile(archive) or archive.suffix == ".tar"):
            folder.mkdir(exist_ok=True)
            shutil.unpack_archive(archive, folder)
            archive.unlink()


@pytest.mark.parametrize("name", ["openvid", "opens2v", "vidgen"])
def test_the_same_set_unpacked_gives_the_same_ids_and_bytes(name: str, videos: Videos, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    SETS[name](folder, videos)
    for damaged in (folder / "OpenVid_part2.zip", folder / "OpenVid_part3.zip"):
        damaged.unlink(missing_ok=True)
    build_inline(f"{name}:{folder}", tmp_path / "packed", CONFIG)
    _unpacked(folder)
    build_inline(f"{name}:{folder}", tmp_path / "unpacked", CONFIG)
    assert Counter(row.outcome for row in ledger(tmp_path / "unpacked", CONFIG))[KEPT] > 0
    assert_same_clips(tmp_path / "packed", tmp_path / "unpacked", CONFIG)


def test_files_without_a_row_are_counted_and_hd_is_not_read_twice(videos: Videos, tmp_path: Path) -> None:
    SETS["openvid"](tmp_path / "set", videos)
    skipped = SkippedFiles()
    clips = list(Source.at(f"openvid:{tmp_path / 'set'}").clips(skipped))
    assert skipped.counts == {"that no row names": 1}
    assert [clip.group for clip in clips if clip.name.startswith("---")] == ["---_iRTH"] * 3
    hd = list(Source.at(f"openvid-hd:{tmp_path / 'set'}").clips())
    assert [clip.flaw for clip in hd] == ["absent"] and hd[0].clip_id == clips[1].clip_id


def test_clips_of_one_original_are_on_one_side_of_the_split(videos: Videos, tmp_path: Path) -> None:
    SETS["opens2v"](tmp_path / "set", videos)
    build_inline(f"opens2v:{tmp_path / 'set'}", tmp_path / "out", replace(CONFIG, test=0.5))
    sides: dict[str, set[str]] = {}
    for row in ledger(tmp_path / "out", CONFIG):
        if row.source.endswith(".mp4"):
            sides.setdefault(row.source, set()).add(row.split)
    assert sides and all(len(side) == 1 for side in sides.values())


def test_the_crop_of_a_set_removes_its_black_bars(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "Videos" / "total_part1").mkdir(parents=True)
    (folder / "Jsons").mkdir()
    write_video(folder / "Videos" / "total_part1" / "v_part1.mp4")
    edges = [BARS.left, BARS.left + BARS.width, BARS.top, BARS.top + BARS.height]
    told = {"path": "p/v_part1.mp4", "face_cut": [0, 9], "fps": 16, "cap": ["white"]}
    entries = {key: {"metadata": {**told, **crop}} for key, crop in (("a", {"crop": edges}), ("b", {}))}
    (folder / "Jsons" / "total_part1.json").write_text(json.dumps(entries))
    build_inline(f"opens2v:{folder}", tmp_path / "out", CONFIG)
    with_crop, without = (np.asarray(sample["video"]) for sample in ClipDataset(str(tmp_path / "out")))
    assert with_crop.shape == (9, 48, 64, 3)
    assert with_crop[:, :, 40:].min() > 225 and without[:, :8].max() < 30


def test_every_preset_says_how_its_layout_is_known() -> None:
    assert {"openvid", "openvid-hd", "opens2v", "vidgen", "openhumanvid", "blip3o"} <= PRESETS.keys()
    for name in PRESETS:
        about = preset(name).about
        assert about.title and "November 2026" in about.layout and about.like
