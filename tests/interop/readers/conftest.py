"""One dataset for all readers: two splits of several shards, an image, a shard made anew, its old tar left behind."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from nextscene.shards.loading.reader import SplitReader
from tests.interop.readers.digests import digest
from tests.support import SMALL, build_inline, captioned_spans, make_video, run_ffmpeg, write_csv

Digests = dict[str, dict[str, dict[str, str]]]
"""{split: {key: {member: sha256}}}, in the order of the shards."""

CONFIG = replace(SMALL, test=0.3, split_by="clip", units_per_shard=3)


class Dataset(NamedTuple):
    """`digests` is what our own reader finds in `folder`; `stale` a tar there that no longer belongs to it."""

    folder: Path
    digests: Digests
    stale: Path


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("readers")
    source, out = _sources(folder), folder / "out"
    late = folder / "late.mp4"
    late.rename(folder / "late.later")
    build_inline(source, out, CONFIG)
    before = {tar: tar.read_bytes() for tar in out.rglob("*.tar")}
    (folder / "late.later").rename(late)
    build_inline(source, out, CONFIG, frozenset({"absent"}))
    (stale,) = (tar for tar in before if not tar.exists())
    stale.write_bytes(before[stale])
    return Dataset(out, _digests(out), stale)


def _sources(folder: Path) -> Path:
    """Spans of a film, an image, and a video that comes late, with texts that are not all plain."""
    source = captioned_spans(folder, 30)
    make_video(folder / "late.mp4", 0.25)
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=640x640:rate=1", "-frames:v", "1", str(folder / "image.png"))
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows += [
        {"video": "late.mp4", "caption": 'ein "später" <b>Film</b>\n— 後で 🎬', "colour": "blue"},
        {"video": "image.png", "caption": "picture: {a} | \\ % 'still'"},
    ]
    return write_csv(source, rows)


def _digests(out: Path) -> Digests:
    found: Digests = {}
    for split in ("train", "test"):
        reader = SplitReader(str(out), split)
        groups = [reader.group(number) for number in range(len(reader))]
        found[split] = {
            group.key: {member: digest(data) for member, data in group.contents.items()} for group in groups
        }
    return found


@pytest.fixture
def copy(dataset: Dataset, tmp_path: Path) -> Path:
    """The dataset, to be changed."""
    return Path(shutil.copytree(dataset.folder, tmp_path / "copy"))
