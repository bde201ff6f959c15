"""`--retry`: what ended badly is done anew, and nothing else is touched."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.storage import Storage
from nextscene.shards.format.checksums import update_checksum
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.sample import Sample
from nextscene.shards.loading.reader import ShardReader
from tests.support import SMALL, assert_conserved, build_inline, ledger, make_video, write_csv

ABSENT = frozenset({"absent"})
SHARD = ShardName("train", 0)


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over three videos of which the second was not there."""
    folder = tmp_path_factory.mktemp("late")
    for name in ("a", "b", "c"):
        make_video(folder / f"{name}.mp4", 0.25, "832x480", "16", "-metadata", f"title={name}")
    (folder / "b.mp4").rename(folder / "b.later")
    rows = [{"video": f"{name}.mp4", "caption": f"caption {name}"} for name in ("a", "b", "c")]
    build_inline(write_csv(folder / "clips.csv", rows), folder / "out", SMALL)
    return folder


@pytest.fixture
def source(late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to be changed; the path by which the run knows its source is kept, by going there."""
    shutil.copytree(late, tmp_path / "copy", copy_function=shutil.copy2)
    config = tmp_path / "copy" / "out" / "config.toml"
    config.write_text(config.read_text().replace(str(late), str(tmp_path / "copy")))
    update_checksum(Storage.at(tmp_path / "copy" / "out"), config.name, hashlib.sha256(config.read_bytes()).hexdigest())
    return tmp_path / "copy"


def retry(source: Path, outcomes: frozenset[str] = ABSENT) -> None:
    build_inline(source / "clips.csv", source / "out", SMALL, outcomes)


def ends(source: Path) -> list[tuple[str, str]]:
    return [(row.outcome, row.reason) for row in ledger(source / "out")]


def samples(source: Path, name: ShardName) -> dict[str, Sample]:
    reader = ShardReader(Storage.at(source / "out"), name)
    return {key: reader.sample(key) for key in reader.receipt.clip_ids}


def files(source: Path) -> dict[str, bytes]:
    """The dataset, without the account of the last run and its sha256."""
    out, of_the_run = Storage.at(source / "out"), ("summary.json", "SHA256SUMS")
    return {entry.path: out.read(entry.path) for entry in out.files(recursive=True) if entry.path not in of_the_run}


def test_a_source_that_was_not_there_is_a_failure_on_record(source: Path) -> None:
    assert ends(source) == [("kept", ""), ("absent", "no_file"), ("kept", "")]
    assert_conserved(source / "out")


def test_a_restored_source_is_kept_in_a_new_revision_that_replaces_the_first(source: Path) -> None:
    (source / "b.later").rename(source / "b.mp4")
    retry(source)
    assert ends(source) == [("kept", "")] * 3
    assert_conserved(source / "out")
    again = replace(SHARD, revision=1)
    manifest = json.loads((source / "out" / "manifest.json").read_text())
    assert [shard["path"] for shard in manifest["shards"]] == [again.tar]
    kept = {path for path in files(source) if path.startswith(("shards/", "ledger/", "parts/"))}
    assert kept == {again.tar, again.offsets, again.receipt, again.ledger}


def test_the_other_clips_are_taken_over_as_they_are_without_their_sources(source: Path) -> None:
    before = samples(source, SHARD)
    rows = {row.clip_id: row for row in ledger(source / "out")}
    (source / "b.later").rename(source / "b.mp4")
    (source / "a.mp4").unlink()
    (source / "c.mp4").write_bytes(b"another film by now")
    retry(source)
    after = samples(source, replace(SHARD, revision=1))
    assert len(after) == 3 and before == {key: after[key] for key in before}
    for row in ledger(source / "out"):
        # Also when and by which run they were made: those rows are the very ones of before.
        assert row == rows[row.clip_id] or row.source == "b.mp4"
    assert_conserved(source / "out")


def test_a_retry_makes_what_a_run_with_all_sources_would_have_made(source: Path, tmp_path: Path) -> None:
    (source / "b.later").rename(source / "b.mp4")
    retry(source)
    build_inline(source / "clips.csv", tmp_path / "fresh", SMALL)
    fresh = ShardReader(Storage.at(tmp_path / "fresh"), SHARD).receipt
    retried = ShardReader(Storage.at(source / "out"), replace(SHARD, revision=1)).receipt
    assert (retried.sha256, retried.clip_ids) == (fresh.sha256, fresh.clip_ids)


def test_a_retry_that_changes_nothing_leaves_every_file_as_it_was(source: Path) -> None:
    before = files(source)
    retry(source)
    retry(source)
    assert files(source) == before
    assert_conserved(source / "out")


def test_a_retry_after_one_that_changed_nothing_works_as_ever(source: Path) -> None:
    retry(source)
    (source / "b.later").rename(source / "b.mp4")
    retry(source)
    assert ends(source) == [("kept", "")] * 3
    assert_conserved(source / "out")


def test_a_retry_that_ends_otherwise_badly_says_so(source: Path) -> None:
    (source / "b.mp4").write_bytes(b"no film")
    retry(source)
    assert ends(source)[1] == ("rejected", "unreadable")
    assert_conserved(source / "out")


def test_one_retry_can_follow_another(source: Path) -> None:
    (source / "b.mp4").write_bytes(b"no film")
    retry(source)
    (source / "b.later").replace(source / "b.mp4")
    retry(source, frozenset({"rejected"}))
    assert ends(source) == [("kept", "")] * 3
    assert [path for path in files(source) if path.endswith(".tar")] == [replace(SHARD, revision=2).tar]
    assert_conserved(source / "out")


def test_a_retry_of_other_outcomes_does_nothing(source: Path) -> None:
    before = files(source)
    (source / "b.later").rename(source / "b.mp4")
    retry(source, frozenset({"dropped", "refused", "quarantined", "rejected"}))
    assert files(source) == before


def test_a_later_run_without_retry_does_nothing(source: Path) -> None:
    (source / "b.later").rename(source / "b.mp4")
    before = files(source)
    build_inline(source / "clips.csv", source / "out", SMALL)
    assert files(source) == before


def test_only_the_shards_that_hold_such_a_clip_are_made_anew(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", 0.25, "832x480")
    rows = [{"video": "a.mp4", "id": str(i), "caption": f"caption {i}"} for i in range(5)]
    rows.append({"video": "b.mp4", "id": "b", "caption": "late"})
    manifest = write_csv(tmp_path / "clips.csv", rows)
    build_inline(manifest, tmp_path / "out", SMALL)
    first = (tmp_path / "out" / SHARD.tar).stat()
    shutil.copyfile(tmp_path / "a.mp4", tmp_path / "b.mp4")
    build_inline(manifest, tmp_path / "out", SMALL, ABSENT)
    after = (tmp_path / "out" / SHARD.tar).stat()
    assert (after.st_ino, after.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.tar")) == ["nsp-000000.tar", "nsp-000001-r1.tar"]
    assert [row.outcome for row in ledger(tmp_path / "out")] == ["kept"] * 6
    assert_conserved(tmp_path / "out")


def test_a_shard_of_which_nothing_was_kept_gets_its_tar(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    rows = [{"video": "a.mp4", "caption": "late"}, {"video": "empty.mp4", "caption": "nothing"}]
    manifest = write_csv(tmp_path / "clips.csv", rows)
    build_inline(manifest, tmp_path / "out", SMALL)
    assert_conserved(tmp_path / "out")
    make_video(tmp_path / "a.mp4", 0.25, "832x480")
    build_inline(manifest, tmp_path / "out", SMALL, ABSENT)
    assert [row.outcome for row in ledger(tmp_path / "out")] == ["kept", "rejected"]
    assert_conserved(tmp_path / "out")
