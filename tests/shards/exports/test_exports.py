"""What is written for other people's readers, compared with the tars by other means. What they say is in interop."""

from __future__ import annotations

import json
import sqlite3
import tarfile
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common.errors import DamagedRecord
from nextscene.common.storage import Storage, StorageFault
from nextscene.shards.exports import DatasetFacts, energon, huggingface, publish
from nextscene.shards.exports.dataset_facts import record_fields
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.sample import CLIPS, SCHEMA_VERSION, Record
from tests.shards.samples import sample, seal_samples

ABOUT = DatasetFacts("a title", "none", "how it was made", False, (("kept", "", 9), ("rejected", "too_small", 1)))
NAMES = (ShardName("test", 0), ShardName("train", 0, 1), ShardName("train", 2))


def sealed(folder: Path, *names: ShardName) -> tuple[Storage, Manifest, list[Receipt]]:
    """Shards of three samples each, of all lengths around those of a block, and one without a sample."""
    out, receipts = Storage.at(folder), [Receipt.empty(ShardName("test", 7), CLIPS.members)]
    for place, name in enumerate(names):
        contents = [sample(10 * place + i, 511 + i) for i in range(3)]
        receipts.append(seal_samples(folder, contents, name)[1])
    return out, Manifest.of(receipts, "f" * 64, True), receipts[1:]


def written(out: Storage) -> dict[str, bytes]:
    """All files but the shards and what they were made from."""
    return {
        entry.path: out.read(entry.path)
        for entry in out.files(recursive=True)
        if not entry.path.startswith(("shards/", "parts/"))
    }


def header_of(card: bytes) -> Any:
    return yaml.safe_load(card.decode().split("---\n")[1])


def rows(folder: Path, table: str) -> list[Any]:
    with closing(sqlite3.connect(folder / ".nv-meta" / "index.sqlite")) as database:
        return list(database.execute(f"SELECT * FROM {table}"))


def test_energon_s_index_says_where_tarfile_finds_each_member(tmp_path: Path) -> None:
    out, manifest, _ = sealed(tmp_path, *NAMES)
    publish(out, manifest, ABOUT)
    parts, samples = [], []
    for number, shard in enumerate(manifest.shards):
        with tarfile.open(tmp_path / shard.path) as tar:
            members = tar.getmembers()
        groups = [members[i : i + 3] for i in range(0, 9, 3)]
        edges = [*(group[0].offset for group in groups), tar.offset]
        for i, group in enumerate(groups):
            samples.append((number, group[0].name.partition(".")[0], i, edges[i], edges[i + 1] - edges[i]))
            parts += [(number, i, one.name.partition(".")[2], one.offset_data, one.size) for one in group]
    assert rows(tmp_path, "samples") == samples
    assert rows(tmp_path, "sample_parts") == parts


def test_energon_s_index_is_written_with_one_receipt_in_memory(tmp_path: Path) -> None:
    out, manifest, receipts = sealed(tmp_path, *NAMES)
    given_out: list[weakref.ref[Receipt]] = []

    def one_by_one() -> Iterator[Receipt]:
        for receipt in receipts:
            assert sum(given() is not None for given in given_out) <= 1
            copy = replace(receipt)
            given_out.append(weakref.ref(copy))
            yield copy
            del copy

    energon.publish(out, manifest, one_by_one())
    assert len(given_out) == len(rows(tmp_path, "samples")) / 3 == 3


def test_energon_s_identity_is_that_of_the_shards(tmp_path: Path) -> None:
    out, manifest, _ = sealed(tmp_path, *NAMES)
    others = [
        manifest,
        replace(manifest, shards=manifest.shards[1:]),
        replace(manifest, shards=(replace(manifest.shards[0], sha256="0" * 64), *manifest.shards[1:])),
    ]
    identities = []
    for one in (*others, *others):
        energon.publish(out, one, (shard.receipt(out) for shard in manifest.shards))
        identities.append(out.read(".nv-meta/index.uuid"))
    assert identities[:3] == identities[3:]
    assert len(set(identities)) == 3


def test_the_same_shards_give_the_same_files(tmp_path: Path) -> None:
    out, manifest, _ = sealed(tmp_path, *NAMES)
    publish(out, manifest, ABOUT)
    first = written(out)
    publish(out, manifest, ABOUT)
    assert written(out) == first
    assert {*first} == {
        "README.md",
        "croissant.json",
        "wids-test.json",
        "wids-train.json",
        ".nv-meta/.info.json",
        ".nv-meta/dataset.yaml",
        ".nv-meta/index.sqlite",
        ".nv-meta/index.uuid",
        ".nv-meta/split.yaml",
    }


def test_each_reader_is_told_of_each_tar_once_and_of_no_other(tmp_path: Path) -> None:
    out, manifest, _ = sealed(tmp_path, *NAMES)
    publish(out, manifest, ABOUT)
    expected = {split: [shard.path for shard in manifest.of_split(split)] for split in ("train", "test")}
    card = header_of(out.read("README.md"))
    croissant = json.loads(out.read("croissant.json"))
    tars = [node for node in croissant["distribution"] if node["@type"] == "cr:FileObject"]
    told = {
        "hugging face": {one["split"]: one["path"] for one in card["configs"][0]["data_files"]},
        "energon": yaml.safe_load(out.read(".nv-meta/split.yaml"))["split_parts"],
        "wids": {
            split: [shard["url"] for shard in json.loads(out.read(f"wids-{split}.json"))["shardlist"]]
            for split in expected
        },
    }
    assert told == dict.fromkeys(told, expected)
    assert [(tar["contentUrl"], tar["sha256"]) for tar in tars] == [(one.path, one.sha256) for one in manifest.shards]


def test_each_reader_is_told_how_many_samples_there_are(tmp_path: Path) -> None:
    out, manifest, _ = sealed(tmp_path, *NAMES)
    publish(out, manifest, ABOUT)
    splits = header_of(out.read("README.md"))["dataset_info"]["splits"]
    assert {split["name"]: split["num_examples"] for split in splits} == {"train": 6, "test": 3}
    counts = {shard.path: shard.count for shard in manifest.shards}
    assert json.loads(out.read(".nv-meta/.info.json"))["shard_counts"] == counts
    for split in ("train", "test"):
        listed = json.loads(out.read(f"wids-{split}.json"))["shardlist"]
        assert {shard["url"]: shard["nsamples"] for shard in listed}.items() <= counts.items()


def test_whatever_croissant_refers_to_is_there_and_has_one_name(tmp_path: Path) -> None:
    out, manifest, _ = sealed(tmp_path, *NAMES)
    publish(out, manifest, ABOUT)
    croissant = json.loads(out.read("croissant.json"))
    nodes = list(walk([croissant["distribution"], croissant["recordSet"]]))
    names = [node["@id"] for node in nodes if "@type" in node]
    assert len(set(names)) == len(names)
    assert {node["@id"] for node in nodes if "@id" in node} == {*names}


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from walk(part)


def test_a_split_without_a_sample_is_nowhere(tmp_path: Path) -> None:
    out, manifest, _ = sealed(tmp_path, NAMES[1])
    publish(out, manifest, ABOUT)
    files = written(out)
    assert "wids-train.json" in files
    assert "wids-test.json" not in files
    assert [path for path, data in files.items() if b"test" in data] == []


def test_a_dataset_without_a_sample_has_files_that_say_so(tmp_path: Path) -> None:
    out, manifest, _ = sealed(tmp_path)
    publish(out, manifest, ABOUT)
    assert not {"configs", "dataset_info", "size_categories"} & {*header_of(out.read("README.md"))}
    assert yaml.safe_load(out.read(".nv-meta/split.yaml")) == {"split_parts": {}, "exclude": []}
    assert json.loads(out.read("croissant.json"))["distribution"] == []


def test_every_field_of_a_record_is_explained() -> None:
    assert list(record_fields(SCHEMA_VERSION)) == [field.name for field in fields(Record)]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_title_of_any_text_comes_through_the_card_as_text(title: str) -> None:
    [(_, card)] = huggingface.files(Manifest("f" * 64, True, ()), replace(ABOUT, title=title))
    assert header_of(card)["pretty_name"] == title
    (heading,) = [line for line in card.decode().split("\n") if line.startswith("# ")]
    assert not {"<", ">", '"'} & {*heading}


@pytest.mark.parametrize(("machine_written", "said"), [(True, ["machine-generated"]), (False, None)])
def test_the_card_says_that_texts_are_a_model_s_where_they_are(machine_written: bool, said: object) -> None:
    [(_, card)] = huggingface.files(Manifest("f" * 64, True, ()), replace(ABOUT, machine_written=machine_written))
    assert header_of(card).get("annotations_creators") == said
    assert ABOUT.method.encode() in card


def test_a_card_of_a_run_that_goes_on_says_so() -> None:
    cards = [dict(huggingface.files(Manifest("f" * 64, complete, ()), ABOUT)) for complete in (True, False)]
    assert [b"Not complete" in card["README.md"] for card in cards] == [False, True]


def test_a_receipt_that_is_not_the_manifest_s_is_refused(tmp_path: Path) -> None:
    out, manifest, receipts = sealed(tmp_path, *NAMES)
    replace(receipts[1], sha256="0" * 64).publish(out)
    with pytest.raises(DamagedRecord, match=manifest.shards[1].path):
        publish(out, manifest, ABOUT)


def test_no_room_for_the_index_is_a_fault_of_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, manifest, _ = sealed(tmp_path, *NAMES)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StorageFault, match=r"scratch folder in .*nowhere.*set TMPDIR"):
        publish(out, manifest, ABOUT)
    assert written(out) == {}


def test_a_split_that_has_no_sample_any_more_has_no_wids_index(tmp_path: Path) -> None:
    out, manifest, receipts = sealed(tmp_path, *NAMES)
    publish(out, manifest, ABOUT)
    publish(out, Manifest.of(receipts[1:], "f" * 64, True), ABOUT)
    assert "wids-train.json" in written(out)
    assert "wids-test.json" not in written(out)


def test_what_stands_is_not_written_again_and_what_was_lost_is(tmp_path: Path) -> None:
    out, manifest, _ = sealed(tmp_path, *NAMES)
    publish(out, manifest, ABOUT)
    before = {entry.path: entry for entry in out.files(recursive=True)}
    right = written(out)
    publish(out, manifest, ABOUT)
    assert {entry.path: entry for entry in out.files(recursive=True)} == before
    for path in right:
        out.delete(path)
        publish(out, manifest, ABOUT)
        assert written(out) == right
