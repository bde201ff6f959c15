"""Datasets of videos and images that an earlier schema began: finished in it, and used beside those of today."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nextscene.common.storage import Storage
from nextscene.curation.inspect.sample import extract
from nextscene.curation.ledger import SCHEMA, Row
from nextscene.curation.report.filmstrips import ShardFilmstripTask
from nextscene.curation.run import prepare
from nextscene.shards.format.layout import CONFIG as CONFIG_FILE
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import Receipt, sealed_shards
from nextscene.shards.format.sample import SCHEMA_VERSION
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.loader import Loader
from nextscene.shards.loading.mixture import Mixture
from tests.support import SMALL, assert_conserved, build_inline, captioned_spans, ledger, problems, run_ffmpeg

pytestmark = pytest.mark.slow

CONFIG = replace(SMALL, test=0.0, units_per_shard=2)
SPANS, IMAGES = 5, 3
OLD = 2


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spans of a film, and images among them."""
    folder = tmp_path_factory.mktemp("source")
    manifest = captioned_spans(folder, SPANS)
    with manifest.open("a", encoding="utf-8", newline="") as file:
        for number, size in enumerate(("640x640", "720x513", "600x900")):
            run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=size={size}", "-frames:v", "1", str(folder / f"{number}.png"))
            file.write(f"{number}.png,,,image {number}\r\n")
    return manifest


@pytest.fixture(scope="module")
def before() -> Callable[..., None]:
    """Builds as a program of the earlier schema would."""

    def build(source: Path, out: Path, **how: object) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prepare, "schema_of", lambda _: OLD)
            build_inline(source, out, CONFIG, **how)  # type: ignore[arg-type]

    return build


@pytest.fixture(scope="module")
def old(source: Path, before: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("old") / "out"
    before(source, out)
    return out


@pytest.fixture(scope="module")
def new(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("new") / "out"
    build_inline(source, out, CONFIG)
    return out


def members(out: Path) -> dict[str, int]:
    """How many members of each kind are in the tars."""
    found: dict[str, int] = {}
    for path in out.glob("shards/**/*.tar"):
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                suffix = name.partition(".")[2]
                found[suffix] = found.get(suffix, 0) + 1
    return found


def published(out: Path) -> dict[str, bytes]:
    """All that does not describe the run: of the receipts what they say of the tars."""
    ends = (".tar", ".idx", "manifest.json", "README.md", "croissant.json", "index/train.parquet", "config.toml")
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if str(path).endswith(ends)}
    for path in out.glob("shards/**/*.receipt.json"):
        receipt = json.loads(path.read_bytes())
        found[str(path.relative_to(out))] = json.dumps(receipt | {"ledger_sha256": ""}).encode()
    return found


def again(row: Row) -> dict[str, Any]:
    """What a row says of the data, not of the run."""
    specific = {field.name for field in SCHEMA if (field.metadata or {}).get(b"run_specific")}
    return {name: value for name, value in asdict(row).items() if name not in specific}


def test_a_new_dataset_has_jpegs_for_images_and_videos_for_videos(new: Path) -> None:
    clips = SPANS + IMAGES
    assert members(new) == {"json": clips, "mp4": SPANS, "jpg": IMAGES, "txt": clips}
    manifest = Manifest.read(Storage.at(new))
    assert manifest.schema_version == SCHEMA_VERSION == 3
    assert problems(new, CONFIG) == []
    for path in new.glob("shards/**/*.tar"):
        with tarfile.open(path) as tar:
            for member in (one for one in tar if one.name.endswith(".jpg")):
                opened = Image.open(BytesIO(tar.extractfile(member).read()))  # type: ignore[union-attr]
                assert (opened.format, opened.mode, opened.size) == ("JPEG", "RGB", (512, 512))


@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_what_an_earlier_schema_began_is_finished_in_it_byte_for_byte(
    source: Path, before: Callable[..., None], tmp_path: Path, stop_after: int
) -> None:
    out, by_then = tmp_path / "out", tmp_path / "then" / "out"
    before(source, out, stop_after=stop_after)
    shutil.copytree(out, by_then)
    before(source, by_then)
    build_inline(source, out, CONFIG)
    assert published(out) == published(by_then)
    assert members(out) == {"json": SPANS + IMAGES, "mp4": SPANS + IMAGES, "txt": SPANS + IMAGES}
    assert_conserved(out, CONFIG)
    assert [again(row) for row in ledger(out, CONFIG)] == [again(row) for row in ledger(by_then, CONFIG)]


def test_a_retry_of_a_complete_older_dataset_stays_in_its_schema(
    source: Path, before: Callable[..., None], tmp_path: Path
) -> None:
    out, late = tmp_path / "out", source.with_name("1.png")
    late.rename(tmp_path / "away.png")
    try:
        before(source, out)
    finally:
        (tmp_path / "away.png").rename(late)
    build_inline(source, out, CONFIG, frozenset({"absent"}))
    assert members(out) == {"json": SPANS + IMAGES, "mp4": SPANS + IMAGES, "txt": SPANS + IMAGES}
    assert Manifest.read(Storage.at(out)).schema_version == OLD
    assert_conserved(out, CONFIG)


def test_a_damaged_configuration_is_written_anew_in_the_schema_of_the_shards(
    source: Path, before: Callable[..., None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before(source, out, stop_after=4)
    config = (out / CONFIG_FILE).read_bytes()
    (out / CONFIG_FILE).write_bytes(b"")
    build_inline(source, out, CONFIG)
    assert (out / CONFIG_FILE).read_bytes() == config
    assert members(out) == {"json": SPANS + IMAGES, "mp4": SPANS + IMAGES, "txt": SPANS + IMAGES}
    assert_conserved(out, CONFIG)


def test_a_complete_older_dataset_is_shown_reported_and_extracted_as_before(old: Path, tmp_path: Path) -> None:
    out = Storage.at(old)
    before = published(old)
    assert problems(old, CONFIG) == []
    for name, receipt in ((entry, Receipt.read(out, entry)) for entry in sealed_shards(out).values()):
        assert receipt.members == ("json", "mp4", "txt")
        files = extract(out, name, receipt.clip_ids, Storage.at(tmp_path / f"{name.index}"))
        assert {file.partition(".")[2] for file in files} == {"json", "mp4", "txt"}
    assert published(old) == before


@pytest.mark.parametrize("made", ["old", "new"])
def test_every_clip_has_a_strip_on_the_page(made: str, request: pytest.FixtureRequest) -> None:
    out: Path = request.getfixturevalue(made)
    rows = {row.clip_id: row for row in ledger(out, CONFIG)}
    for name in sealed_shards(Storage.at(out)).values():
        for key in Receipt.read(Storage.at(out), name).clip_ids:
            strip = ShardFilmstripTask(Storage.at(out), name, key, rows[key].mp4_sha256).make()
            assert strip.missing == "" and len(strip.frames) == (1 if rows[key].source.endswith("png") else 4)


def test_old_and_new_sets_mix_and_show_the_same(old: Path, new: Path) -> None:
    clips = [ClipDataset(str(out), max_frames=1) for out in (old, new)]
    assert clips[0].shapes.tolist() == clips[1].shapes.tolist()
    mixture = Mixture(clips, [0.5, 0.5])
    seen = {}
    for batch in islice(Loader(mixture, micro_batch=1, workers=0), 8 * len(mixture)):
        assert (batch.video.dtype, len(batch.video.shape)) == (torch.uint8, 5)
        seen[batch.source[0], batch.keys[0]] = batch.video[0].numpy().copy()
    assert len(seen) == 2 * (SPANS + IMAGES)
    for (source, key), picture in seen.items():
        other = seen[1 - source, key]
        assert picture.shape == other.shape
        assert np.abs(picture.astype(float) - other).mean() < 4
        if picture.shape[1] != picture.shape[2]:
            assert np.array_equal(picture, other), "a video is what it was"
