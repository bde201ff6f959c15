"""Receipts and the manifest: what they say comes back, and what is not one is refused by its name."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common.errors import DamagedRecord
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import MANIFEST, ShardName, UnitName
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import Receipt, SampleLocation, sealed_shards
from nextscene.shards.format.sample import CLIP_TYPES

pytestmark = pytest.mark.slow

PLACES = (SampleLocation(0, (10, 700, 3), 5, 24, 832, 480), SampleLocation(3584, (512, 0, 513), 2**32 - 1, 1, 512, 512))
RECEIPT = Receipt("train", 7, 0, "ab" * 32, 7680, 2, CLIP_TYPES[2].members, ("a" * 24, "b" * 24), PLACES)
PUBLISHED = {
    "split": "train",
    "index": 7,
    "revision": 0,
    "sha256": "ab" * 32,
    "bytes": 7680,
    "count": 2,
    "members": ["json", "mp4", "txt"],
    "clip_ids": ["a" * 24, "b" * 24],
    "places": [[0, 10, 700, 3, 5, 24, 832, 480], [3584, 512, 0, 513, 2**32 - 1, 1, 512, 512]],
}

names = st.builds(ShardName, st.sampled_from(["train", "test"]), st.integers(0, 3000), st.integers(0, 12))
receipts = names.map(
    lambda name: replace(
        RECEIPT,
        split=name.split,
        index=name.index,
        revision=name.revision,
        bytes=4608,
        count=1,
        clip_ids=("c" * 24,),
        places=PLACES[:1],
    )
)


@given(names)
def test_a_shard_is_found_by_the_path_of_its_receipt(name: ShardName) -> None:
    assert ShardName.of(name.receipt) == name
    assert ShardName.of(name.tar) == ShardName.of(name.ledger) == name


@given(st.builds(UnitName, st.sampled_from(["train", "test"]), st.integers(0, 10**8), st.integers(0, 12)))
def test_a_unit_is_found_by_the_path_of_its_ledger(name: UnitName) -> None:
    assert UnitName.of(name.ledger) == UnitName.of(name.part) == UnitName.of(name.crashes) == name


@given(st.sets(names, max_size=20))
def test_no_two_shards_share_a_file(some: set[ShardName]) -> None:
    paths = [path for name in some for path in (name.tar, name.offsets, name.receipt, name.ledger)]
    assert len(set(paths)) == len(paths)


def test_a_folder_holds_at_most_a_thousand_shards() -> None:
    folders = [ShardName("train", index).tar.rpartition("/")[0] for index in range(2001)]
    assert folders.count("shards/train/000") == folders.count("shards/train/001") == 1000
    assert folders[2000] == "shards/train/002"


@settings(max_examples=25, deadline=None)
@given(receipts)
def test_a_receipt_comes_back_as_it_was_published(receipt: Receipt) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Storage.at(folder)
        receipt.publish(out)
        assert Receipt.read(out, receipt.name) == receipt


@settings(max_examples=25, deadline=None)
@given(st.lists(receipts, max_size=12, unique_by=lambda receipt: receipt.name))
def test_the_newest_revision_of_each_shard_counts(some: list[Receipt]) -> None:
    newest: dict[tuple[str, int], int] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Storage.at(folder)
        for receipt in some:
            receipt.publish(out)
            place = (receipt.split, receipt.index)
            newest[place] = max(newest.get(place, 0), receipt.revision)
        found = sealed_shards(out)
    assert {place: name.revision for place, name in found.items()} == newest
    assert list(found) == sorted(found)


def test_files_that_are_no_receipts_are_no_shards(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    for path in ("nsp-000001.tar", "nsp-1.receipt.json", "x.receipt.json", "nsp-000001.receipt.json.bak"):
        out.write(f"shards/train/000/{path}", b"{}")
    out.write("shards/nsp-000001.receipt.json", b"{}")
    assert sealed_shards(out) == {}
    assert sealed_shards(Storage.at(tmp_path / "nowhere")) == {}


def test_a_receipt_is_published_as_flat_json(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    RECEIPT.publish(out)
    assert json.loads(out.read(RECEIPT.name.receipt)) == PUBLISHED


def written(out: Storage, value: Any) -> None:
    out.write(RECEIPT.name.receipt, value if isinstance(value, bytes) else json.dumps(value).encode())


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"7",
        b"{}",
        {**PUBLISHED, "extra": 1},
        {name: value for name, value in PUBLISHED.items() if name != "sha256"},
        {**PUBLISHED, "clip_ids": None},
        {**PUBLISHED, "index": 8},
        {**PUBLISHED, "split": "test"},
        {**PUBLISHED, "revision": 1},
        {**PUBLISHED, "count": 3},
        {**PUBLISHED, "places": PUBLISHED["places"][:1]},
        {**PUBLISHED, "places": [PUBLISHED["places"][0][:-1]] * 2},
        {**PUBLISHED, "places": [["0", *PUBLISHED["places"][0][1:]]] * 2},
        {**PUBLISHED, "places": [0, 0]},
        {**PUBLISHED, "places": [[*place[:4], 2**32, *place[5:]] for place in PUBLISHED["places"]]},
        {**PUBLISHED, "places": [[*place[:5], 0, 832, 480] for place in PUBLISHED["places"]]},
        {**PUBLISHED, "places": [[*place[:5], 81, 2**40, 480] for place in PUBLISHED["places"]]},
        {**PUBLISHED, "members": ["json", "mp4", "mp4"]},
        {**PUBLISHED, "clip_ids": ["a" * 24, "../" * 8]},
        b"[" * 100_000,
        json.dumps(PUBLISHED).replace("7680", "NaN").encode(),
        {**PUBLISHED, "members": ["json", "mp4"]},
        {**PUBLISHED, "members": ["json", "mp4", 7]},
        {**PUBLISHED, "clip_ids": ["a" * 24, 7]},
        {**PUBLISHED, "bytes": "7680"},
        {**PUBLISHED, "bytes": 7681},
        {**PUBLISHED, "count": True},
        {**PUBLISHED, "places": [PUBLISHED["places"][1], PUBLISHED["places"][0]]},
        {**PUBLISHED, "places": [[512, *PUBLISHED["places"][0][1:]], PUBLISHED["places"][1]]},
        {**PUBLISHED, "places": [[0, -502, 1724, *PUBLISHED["places"][0][3:]], PUBLISHED["places"][1]]},
        {**PUBLISHED, "count": 1, "clip_ids": ["a"], "bytes": 2**31 + 2560, "places": [[0, 0, 2**31, 0, *[1] * 4]]},
    ],
)
def test_a_receipt_that_is_not_this_shard_s_is_refused_by_its_path(tmp_path: Path, value: Any) -> None:
    out = Storage.at(tmp_path)
    written(out, value)
    with pytest.raises(ValueError, match=RECEIPT.name.receipt):
        Receipt.read(out, RECEIPT.name)


def test_a_missing_receipt_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Receipt.read(Storage.at(tmp_path), RECEIPT.name)


@given(st.lists(receipts, max_size=12, unique_by=lambda receipt: receipt.name), st.booleans())
def test_the_manifest_lists_the_tars_in_order_and_only_shards_that_have_one(
    some: list[Receipt], complete: bool
) -> None:
    empty = Receipt.empty(ShardName("train", 9999), CLIP_TYPES[2].members)
    manifest = Manifest.of([*some, empty], "f" * 64, complete)
    assert manifest == Manifest.of([empty, *reversed(some)], "f" * 64, complete)
    assert [shard.path for shard in manifest.shards] == [r.name.tar for r in sorted(some, key=lambda r: r.name)]
    assert {(s.path, s.sha256, s.bytes, s.count) for s in manifest.shards} == {
        (r.name.tar, r.sha256, r.bytes, r.count) for r in some
    }


def test_the_manifest_comes_back_as_it_was_published(tmp_path: Path) -> None:
    manifest = Manifest.of([RECEIPT, replace(RECEIPT, split="test")], "f" * 64, False)
    manifest.publish(Storage.at(tmp_path))
    assert Manifest.read(Storage.at(tmp_path)) == manifest


def test_a_manifest_of_another_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    out = Storage.at(tmp_path)
    replace(Manifest.of([RECEIPT], "f" * 64, True), schema_version=99).publish(out)
    with pytest.raises(ValueError, match=r"manifest.json in .* has schema version 99, not 2 or 3; .* build again"):
        Manifest.read(out)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"[]", b"null", b"7", b"{}", b'{"schema_version": 3}', b"[" * 100_000]
)
def test_what_is_not_a_manifest_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    out = Storage.at(tmp_path)
    out.write(MANIFEST, data)
    with pytest.raises(ValueError, match=MANIFEST):
        Manifest.read(out)


@pytest.mark.parametrize(
    ("split", "path"),
    [
        ("train", "../nsp-000007.tar"),
        ("train", "/shards/train/000/nsp-000007.tar"),
        ("train", "shards/train/001/nsp-000007.tar"),
        ("train", "shards/train/000/nsp-000007.tar.idx"),
        ("test", "shards/train/000/nsp-000007.tar"),
    ],
)
def test_a_manifest_that_lists_a_tar_where_none_can_be_is_refused(tmp_path: Path, split: str, path: str) -> None:
    out = Storage.at(tmp_path)
    manifest = Manifest.of([RECEIPT], "f" * 64, True)
    replace(manifest, shards=(replace(manifest.shards[0], split=split, path=path),)).publish(out)
    with pytest.raises(DamagedRecord, match=f"{MANIFEST} lists .*nsp-000007"):
        Manifest.read(out)


@pytest.mark.parametrize(
    ("field", "value"), [("count", 2.0), ("count", 0), ("bytes", None), ("sha256", 7), ("path", 7), ("further", 1)]
)
def test_a_manifest_with_a_field_of_another_type_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    out = Storage.at(tmp_path)
    Manifest.of([RECEIPT], "f" * 64, True).publish(out)
    manifest = json.loads(out.read(MANIFEST))
    manifest["shards"][0][field] = value
    out.write(MANIFEST, json.dumps(manifest).encode())
    with pytest.raises(DamagedRecord, match=MANIFEST):
        Manifest.read(out)
