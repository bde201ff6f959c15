"""`--verify`: it names each thing that is wrong with a dataset, and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextscene.common.storage import Storage
from nextscene.pipelines.build_nsp import _look
from nextscene.pipelines.cli.console import ATTENTION, DONE
from nextscene.shards.format.checksums import update_checksum
from nextscene.shards.format.layout import CHECKSUMS, CONFIG, MANIFEST, MARK, PLAN, REPORT, SUMMARY, ShardName, index
from nextscene.shards.format.tar import BLOCK, END
from tests.support import SMALL, as_before_sums, assert_conserved, build_inline, captioned_spans, problems, write_csv

pytestmark = pytest.mark.slow

ONE, TWO = ShardName("train", 0), ShardName("train", 1)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of four and three clips, of which one is missing its source."""
    folder = tmp_path_factory.mktemp("built")
    manifest = captioned_spans(folder, 6)
    with manifest.open("a", encoding="utf-8") as file:
        file.write("missing.mp4,0,1,words of its own\n")
    build_inline(manifest, folder / "out", SMALL)
    assert_conserved(folder / "out")
    return folder / "out"


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "out")
    return tmp_path / "out"


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def changed(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    place = table.schema.get_field_index(column)
    values = table.column(column).to_pylist()
    values[row] = value
    return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))


def the_one(found: list[str], *words: str) -> None:
    """Exactly one problem, on one line, with all the words."""
    assert len(found) == 1 and "\n" not in found[0], found
    assert all(word in found[0] for word in words), found


def named(found: list[str], *words: str) -> None:
    """Some problem has all the words; each is one line."""
    assert all("\n" not in problem for problem in found)
    assert any(all(word in problem for word in words) for problem in found), found


def test_nothing_is_wrong_with_an_undamaged_copy(copy: Path) -> None:
    assert problems(copy) == []


def test_a_dataset_is_whole_wherever_it_is_moved(copy: Path, tmp_path: Path) -> None:
    copy.rename(tmp_path / "moved")
    assert problems(tmp_path / "moved") == []


# ---- shards ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", ["json", "mp4", "txt"])
@pytest.mark.parametrize("part", ["header", "data"])
def test_a_flipped_byte_in_any_member_is_named_with_its_shard(copy: Path, member: str, part: str) -> None:
    tar = copy / TWO.tar
    header = tar.read_bytes().index(f".{member}\0".encode()) // BLOCK * BLOCK
    flip(tar, header + (10 if part == "header" else BLOCK + 3))
    the_one(problems(copy), "train/nsp-000001")


def test_a_flipped_byte_in_the_end_mark_is_named(copy: Path) -> None:
    flip(copy / ONE.tar, -len(END) + 5)
    the_one(problems(copy), "train/nsp-000000")


def test_a_cut_or_lengthened_shard_is_named(copy: Path) -> None:
    data = (copy / ONE.tar).read_bytes()
    for other in (b"", data[: -len(END)], data[:-1], data + bytes(BLOCK)):
        (copy / ONE.tar).write_bytes(other)
        the_one(problems(copy), "train/nsp-000000")


def test_a_shard_in_another_s_place_is_named(copy: Path) -> None:
    shutil.copyfile(copy / ONE.tar, copy / TWO.tar)
    the_one(problems(copy), "train/nsp-000001", "receipt")


@pytest.mark.parametrize("path", [ONE.tar, ONE.offsets])
def test_a_missing_file_of_a_shard_is_named(copy: Path, path: str) -> None:
    (copy / path).unlink()
    the_one(problems(copy), "train/nsp-000000", path, "missing")


def test_changed_offsets_are_named(copy: Path) -> None:
    flip(copy / ONE.offsets, 9)
    the_one(problems(copy), ONE.offsets)


@pytest.mark.parametrize(
    "path", ["shards/train/000/nsp-000007.tar", "shards/extra.txt", "ledger/train/000/old.parquet"]
)
def test_a_stray_file_among_shards_and_ledgers_is_named(copy: Path, path: str) -> None:
    shutil.copyfile(copy / ONE.tar, copy / path)
    the_one(problems(copy), path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_whole_extra_shard_with_receipt_and_ledger_is_named(copy: Path, split: str) -> None:
    extra = ShardName(split, 7)
    for path in (extra.tar, extra.ledger):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(copy / ONE.tar, copy / extra.tar)
    shutil.copyfile(copy / ONE.offsets, copy / extra.offsets)
    shutil.copyfile(copy / ONE.ledger, copy / extra.ledger)
    receipt = json.loads((copy / ONE.receipt).read_text())
    (copy / extra.receipt).write_text(json.dumps({**receipt, "split": split, "index": 7}))
    found = problems(copy)
    for path in (extra.tar, extra.offsets, extra.receipt, extra.ledger):
        named(found, path)


# ---- receipts --------------------------------------------------------------------------------------------------


def test_a_missing_receipt_is_named_as_a_shard_that_is_not_sealed(copy: Path) -> None:
    (copy / ONE.receipt).unlink()
    named(problems(copy), "train/nsp-000000", "not sealed")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff"])
def test_a_receipt_that_is_none_is_named(copy: Path, data: bytes) -> None:
    (copy / ONE.receipt).write_bytes(data)
    named(problems(copy), ONE.receipt)


@pytest.mark.parametrize(
    ("field", "value"), [("sha256", "0" * 64), ("bytes", 1), ("count", 3), ("count", 0), ("clip_ids", []), ("index", 1)]
)
def test_a_changed_receipt_is_named(copy: Path, field: str, value: object) -> None:
    receipt = json.loads((copy / ONE.receipt).read_text())
    (copy / ONE.receipt).write_text(json.dumps({**receipt, field: value}))
    named(problems(copy), "nsp-000000")


# ---- ledger ----------------------------------------------------------------------------------------------------


def test_a_missing_ledger_is_named(copy: Path) -> None:
    (copy / TWO.ledger).unlink()
    the_one(problems(copy), TWO.ledger, "missing")


def test_a_removed_row_is_named_with_its_clip(copy: Path) -> None:
    clip_id = pq.read_table(copy / ONE.ledger).column("clip_id")[2].as_py()
    rewrite(copy / ONE.ledger, lambda table: pa.concat_tables([table.slice(0, 2), table.slice(3)]))
    named(problems(copy), ONE.ledger, clip_id)


def test_a_doubled_row_is_named(copy: Path) -> None:
    rewrite(copy / ONE.ledger, lambda table: pa.concat_tables([table, table.slice(1, 1)]))
    named(problems(copy), ONE.ledger, "two rows")


def test_a_row_of_another_shard_is_named(copy: Path) -> None:
    other = pq.read_table(copy / TWO.ledger)
    rewrite(copy / ONE.ledger, lambda table: pa.concat_tables([table, other.slice(0, 1)]))
    named(problems(copy), ONE.ledger, other.column("clip_id")[0].as_py(), "not planned")


@pytest.mark.parametrize(
    ("column", "value"), [("caption", "other"), ("start_ms", 7), ("position", 99), ("unit", 1), ("split", "test")]
)
def test_a_row_that_does_not_fit_the_plan_is_named(copy: Path, column: str, value: object) -> None:
    clip_id = pq.read_table(copy / ONE.ledger).column("clip_id")[0].as_py()
    rewrite(copy / ONE.ledger, lambda table: changed(table, column, 0, value))
    named(problems(copy), ONE.ledger, clip_id)


def test_a_kept_clip_turned_into_a_failed_one_is_named(copy: Path) -> None:
    rewrite(copy / ONE.ledger, lambda table: changed(table, "outcome", 1, "failed"))
    named(problems(copy), "train/nsp-000000", "ledger", "receipt")


def test_a_failed_clip_turned_into_a_kept_one_is_named(copy: Path) -> None:
    rewrite(copy / TWO.ledger, lambda table: changed(table, "outcome", 2, "kept"))
    named(problems(copy), "train/nsp-000001", "ledger", "receipt")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"x" * 5000, b"PAR1" + bytes(100) + b"PAR1"])
def test_a_ledger_that_is_none_is_named(copy: Path, data: bytes) -> None:
    (copy / ONE.ledger).write_bytes(data)
    named(problems(copy), ONE.ledger)


def test_a_ledger_of_other_columns_is_named(copy: Path) -> None:
    rewrite(copy / ONE.ledger, lambda table: table.drop_columns(["caption"]))
    named(problems(copy), ONE.ledger)


# ---- plan, manifest --------------------------------------------------------------------------------------------


def test_a_changed_plan_is_named(copy: Path) -> None:
    rewrite(copy / PLAN, lambda table: changed(table, "caption", 3, "another caption"))
    named(problems(copy), PLAN, "changed")


def test_a_missing_plan_is_named(copy: Path) -> None:
    (copy / PLAN).unlink()
    the_one(problems(copy), PLAN, "missing")


def test_a_missing_manifest_is_named(copy: Path) -> None:
    (copy / MANIFEST).unlink()
    the_one(problems(copy), MANIFEST, "missing")


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["shards"].pop(),
        lambda value: value["shards"].reverse(),
        lambda value: value["shards"].append(value["shards"][0]),
        lambda value: value["shards"][0].update(count=3),
        lambda value: value["shards"][0].update(sha256="0" * 64),
        lambda value: value.update(complete=False),
        lambda value: value.update(fingerprint="0" * 64),
        lambda value: value.update(schema_version=1),
        lambda value: value.update(shards=7),
        lambda value: value.pop("shards"),
    ],
)
def test_a_changed_manifest_is_named(copy: Path, change: Callable[[dict[str, object]], None]) -> None:
    value = json.loads((copy / MANIFEST).read_text())
    change(value)
    (copy / MANIFEST).write_text(json.dumps(value))
    the_one(problems(copy), MANIFEST)


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"\xff"])
def test_a_manifest_that_is_none_is_named(copy: Path, data: bytes) -> None:
    (copy / MANIFEST).write_bytes(data)
    the_one(problems(copy), MANIFEST)


def test_several_problems_are_all_named(copy: Path) -> None:
    flip(copy / ONE.tar, BLOCK + 3)
    (copy / TWO.ledger).unlink()
    (copy / MANIFEST).unlink()
    found = problems(copy)
    for word in ("train/nsp-000000", TWO.ledger, MANIFEST):
        named(found, word)


def test_a_dataset_in_which_nothing_was_kept_is_whole(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    manifest = write_csv(tmp_path / "clips.csv", [{"video": "empty.mp4", "caption": "a"}])
    build_inline(manifest, tmp_path / "out", SMALL)
    assert_conserved(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_an_index_that_is_missing_or_wrong_is_named(copy: Path) -> None:
    path = copy / index("train")
    data = path.read_bytes()
    path.unlink()
    the_one(problems(copy), index("train"), "missing")
    path.write_bytes(data[:-1])
    the_one(problems(copy), index("train"), "cannot be read")


# ---- hashes ----------------------------------------------------------------------------------------------------


def test_every_file_that_is_published_is_listed_and_coreutils_agree(copy: Path) -> None:
    listed = {line[66:] for line in (copy / CHECKSUMS).read_text().splitlines()}
    published = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert listed == published - {CHECKSUMS, "nextscene.json"}
    assert _coreutils(copy).returncode == 0
    flip(copy / "README.md", 40)
    assert "README.md: FAILED" in _coreutils(copy).stdout
    (copy / "README.md").unlink()
    assert _coreutils(copy, "--ignore-missing").returncode == 0


def _coreutils(out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sha256sum", "-c", *flags, CHECKSUMS], cwd=out, capture_output=True, text=True, check=False)


def test_what_the_run_wrote_is_listed_and_not_what_stands_there_at_its_end(copy: Path, built: Path) -> None:
    """Damage that came before a run is not made true by it: here a retry, which changes no outcome."""
    flip(copy / CONFIG, (copy / CONFIG).read_bytes().index(b"clip_seconds = 120") + len(b"clip_seconds = 1"))
    flip(copy / ".nv-meta/index.sqlite", 24)
    build_inline(built.parent / "clips.csv", copy, SMALL, frozenset({"failed"}))
    found = problems(copy)
    assert [problem.partition(":")[0] for problem in found] == [CONFIG]
    (copy / CONFIG).write_bytes((built / CONFIG).read_bytes())
    assert problems(copy) == []


@pytest.mark.parametrize("path", [MANIFEST, SUMMARY, "README.md", index("train"), ".nv-meta/index.sqlite", CHECKSUMS])
def test_the_remedy_for_what_sums_up_the_shards_is_one(copy: Path, built: Path, path: str) -> None:
    flip(copy / path, 64)
    the_one(problems(copy), path, "; delete it and run the build again to write it")
    (copy / path).unlink()
    the_one(problems(copy), path, "is missing", "run the build again to write it")
    build_inline(built.parent / "clips.csv", copy, SMALL)
    assert problems(copy) == []


@pytest.mark.parametrize("path", [ONE.tar, ONE.offsets, ONE.receipt, ONE.ledger])
def test_the_remedy_for_a_shard_is_one(copy: Path, built: Path, path: str) -> None:
    flip(copy / path, 700 if path == ONE.tar else 9)
    found = problems(copy)
    named(found, "restore it from a copy, or have the shard made anew")
    for named_file in (ONE.tar, ONE.offsets, ONE.receipt, ONE.ledger):
        (copy / named_file).unlink()
    (copy / "README.md").write_text("changed meanwhile")
    named(problems(copy), "is not sealed; run the build again")
    named(problems(copy), "README.md: it is not the file that was written")
    build_inline(built.parent / "clips.csv", copy, SMALL)
    assert_conserved(copy)


@pytest.mark.parametrize("units_per_shard", [SMALL.units_per_shard, 100])
def test_the_commands_that_verify_prints_mend_a_dataset_of_damaged_shards(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], units_per_shard: int
) -> None:
    config, out = replace(SMALL, units_per_shard=units_per_shard), tmp_path / "out"
    build_inline(built.parent / "clips.csv", out, config)
    for tar in out.rglob("*.tar"):
        flip(tar, 700)
    assert _look(Storage.at(out), verifying=True) == ATTENTION
    *deletions, build = capsys.readouterr().out.partition(" found. ")[2].splitlines()[1:]
    assert f"--out {out}" in build
    subprocess.run("\n".join(deletions), shell=True, check=True)
    build_inline(built.parent / "clips.csv", out, config)
    assert_conserved(out, config)


def test_no_command_is_printed_for_what_only_a_copy_restores(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(copy / PLAN, lambda plan: changed(plan, "caption", 0, "another"))
    assert _look(Storage.at(copy), verifying=True) == ATTENTION
    assert capsys.readouterr().out.endswith(" problem found. Restore what is named above from a copy.\n")


def test_a_page_that_is_written_anew_is_listed_anew(copy: Path) -> None:
    out = Storage.at(copy)
    out.write(REPORT, b"a page")
    the_one(problems(copy), REPORT, "does not list it")
    update_checksum(out, REPORT, "5f4b" * 16)
    the_one(problems(copy), REPORT, "not the file that was written")
    update_checksum(out, REPORT, hashlib.sha256(b"a page").hexdigest())
    assert problems(copy) == []


# ---- older and unfinished datasets -----------------------------------------------------------------------------


def test_an_older_dataset_is_whole_and_told_as_such(
    copy: Path, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_before_sums(copy)
    assert _look(Storage.at(copy), verifying=True) == DONE
    said = " ".join(capsys.readouterr().out.split())
    assert "an older version made it, without SHA256SUMS; the next run adds that" in said
    assert "The dataset is whole" in said
    build_inline(built.parent / "clips.csv", copy, SMALL)
    assert _look(Storage.at(copy), verifying=True) == DONE
    assert "of 2 shards sealed by an older version, the ledger by derivation only" in capsys.readouterr().out
    assert ONE.ledger not in (copy / CHECKSUMS).read_text() and ONE.receipt in (copy / CHECKSUMS).read_text()


@pytest.mark.parametrize(
    "mark", ['{"kind": "run"}', '{"kind": "videos", "version": 1}', '{"kind": "dataset", "version": 9}']
)
def test_a_mark_by_which_the_build_would_refuse_is_told(copy: Path, built: Path, mark: str) -> None:
    (copy / MARK).write_text(mark)
    the_one(problems(copy), MARK, "delete it and run the build again")
    (copy / MARK).unlink()
    build_inline(built.parent / "clips.csv", copy, SMALL)
    assert problems(copy) == []


def test_a_run_that_was_not_concluded_is_told_as_such(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (CHECKSUMS, MANIFEST, SUMMARY, index("train")):
        (copy / path).unlink()
    (copy / "README.md").write_text("of a state before")
    the_one(problems(copy), CHECKSUMS, "was not concluded; run the build again")
    assert _look(Storage.at(copy), verifying=True) == ATTENTION
    assert "older version" not in capsys.readouterr().out


def test_what_is_covered_by_what_is_told(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _look(Storage.at(copy), verifying=True) == DONE
    said = " ".join(capsys.readouterr().out.split())
    count = len((copy / CHECKSUMS).read_text().splitlines())
    assert (
        f"by hash {count} of the {count} files" in said
        and "by derivation rows by plan" in said
        and "by neither work in" in said
    )
