"""Other people's readers find in our dataset what our own finds: each sample once, every byte, no stale file."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import webdataset

from nextscene.common.storage import Storage
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.sample import Record
from tests.interop.readers.conftest import Dataset
from tests.interop.readers.digests import digest
from tests.interop.readers.environment import interpreter, read, run

pytestmark = pytest.mark.slow


def test_the_dataset_has_all_that_a_reader_could_stumble_over(dataset: Dataset) -> None:
    manifest = Manifest.read(Storage.at(dataset.folder))
    assert {split: len(samples) for split, samples in dataset.digests.items()} == {"train": 24, "test": 8}
    assert all(len(manifest.of_split(split)) > 1 for split in dataset.digests)
    (anew,) = [shard.path for shard in manifest.shards if "-r1" in shard.path]
    assert dataset.stale == dataset.folder / anew.replace("-r1", "")
    assert dataset.stale.is_file()


@pytest.mark.parametrize("split", ["train", "test"])
def test_webdataset(dataset: Dataset, split: str) -> None:
    shards = Manifest.read(Storage.at(dataset.folder)).of_split(split)
    urls = [str(dataset.folder / shard.path) for shard in shards]
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    digests = {
        sample["__key__"]: {name: digest(data) for name, data in sample.items() if not name.startswith("__")}
        for sample in found
    }
    assert list(digests.items()) == list(dataset.digests[split].items())
    assert len(found) == len(digests)


def test_hugging_face_datasets_by_the_folder_alone(dataset: Dataset, tmp_path: Path) -> None:
    found = read("hub", "read_huggingface.py", dataset.folder, tmp_path)
    assert found == {"loaded": dataset.digests, "streamed": dataset.digests}


def test_hugging_face_datasets_notices_that_samples_are_missing(dataset: Dataset, copy: Path, tmp_path: Path) -> None:
    big, small = "shards/train/000/nsp-000000.tar", dataset.stale.relative_to(dataset.folder)
    (copy / big).write_bytes((copy / small).read_bytes())
    with pytest.raises(AssertionError, match="NonMatchingSplitsSizesError"):
        read("hub", "read_huggingface.py", copy, tmp_path)


def test_mlcroissant(dataset: Dataset, tmp_path: Path) -> None:
    found = read("hub", "read_croissant.py", dataset.folder, tmp_path)
    assert found["samples"] == dataset.digests
    assert found["errors"] == []
    # Only what we do not know, and would have to invent.
    unknown = {warning.split('"')[1].rpartition("/")[2] for warning in found["warnings"]}
    assert unknown == {"license", "datePublished", "version", "citeAs"}
    types = {"str": "sc:Text", "int": "sc:Integer", "float": "sc:Float"}
    assert found["table"] == {field.name: types[str(field.type)] for field in fields(Record)}


def test_wids_by_number(dataset: Dataset, tmp_path: Path) -> None:
    found = read("torch", "read_wids.py", dataset.folder, tmp_path)
    assert found == {split: [list(sample) for sample in of.items()] for split, of in dataset.digests.items()}


def test_energon_in_order_and_by_name(dataset: Dataset, tmp_path: Path) -> None:
    found = read("torch", "read_energon.py", dataset.folder, tmp_path)
    assert found == {"through": dataset.digests, "by name": dataset.digests}
    assert [list(found["through"][split]) for split in found["through"]] == [
        list(of) for of in dataset.digests.values()
    ]


def test_energon_would_prepare_the_same_index(dataset: Dataset, copy: Path, tmp_path: Path) -> None:
    (copy / dataset.stale.relative_to(dataset.folder)).unlink()  # it takes every tar that it finds
    for made in (*copy.rglob("*.idx"), *(copy / ".nv-meta").iterdir()):
        made.unlink()
    splits = [f"--split-parts={split}:shards/{split}/.*" for split in dataset.digests]
    prepare = [interpreter("torch").with_name("energon"), "prepare", "--non-interactive", "--num-workers=1"]
    run(*prepare, "--sample-type=CrudeWebdataset", *splits, copy, scratch=tmp_path)
    assert _tables(copy) == _tables(dataset.folder)
    assert _shard_counts(copy) == _shard_counts(dataset.folder)
    offsets = [path.relative_to(copy) for path in copy.rglob("*.tar.idx")]
    assert len(offsets) == len(Manifest.read(Storage.at(copy)).shards)
    assert all((copy / path).read_bytes() == (dataset.folder / path).read_bytes() for path in offsets)


def _shard_counts(folder: Path) -> list[tuple[str, int]]:
    """In order, which numbers the tars."""
    return list(json.loads((folder / ".nv-meta" / ".info.json").read_bytes())["shard_counts"].items())


def _tables(folder: Path) -> dict[str, Any]:
    """Rows, columns and indexes of Energon's database, by table."""
    with closing(sqlite3.connect(folder / ".nv-meta" / "index.sqlite")) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: _table(database, name) for name in names}


def _table(database: sqlite3.Connection, name: str) -> Any:
    columns = list(database.execute(f"PRAGMA table_info({name})"))
    indexes = {
        (index, unique, *database.execute(f"PRAGMA index_info({index})"))
        for _, index, unique, *_ in database.execute(f"PRAGMA index_list({name})")
    }
    return sorted(database.execute(f"SELECT * FROM {name}")), columns, indexes
