"""A commit that is found empty, short or without its files is told and made anew; what a missing disk holds is not."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nextscene.common import ffmpeg
from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.hashing import file_sha256
from nextscene.common.storage import Storage, StorageFault
from nextscene.curation.config import EncodeConfig
from nextscene.curation.plan import OPTIONAL_COLUMNS, Plan
from nextscene.curation.plan_writer import write_plan
from nextscene.curation.run.crash_counts import CrashCounts
from nextscene.curation.run.prepare import prepare
from nextscene.curation.run.unit_judge import UnitJudge
from nextscene.curation.sealing.seal_shard import CannotSeal, seal_shard
from nextscene.curation.sources import Source
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit
from nextscene.shards.format.layout import ShardName, UnitName
from tests.faults.kill_at_step import TINY
from tests.support import assert_conserved, assert_same_dataset, build_inline, captioned_spans

pytestmark = pytest.mark.slow

LAST = ShardName("train", 1)
"""It has one clip, so that it is cheap to make anew."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captioned_spans(tmp_path_factory.mktemp("source"), 5, seconds=0.125, size="64x48")


@pytest.fixture(scope="module")
def built(source: Path) -> Path:
    build_inline(source, source.parent / "built", TINY)
    return source.parent / "built"


@pytest.fixture(scope="module")
def begun(source: Path) -> Path:
    """All units are committed, and no shard is sealed."""
    out = source.parent / "begun"
    place, given = Storage.at(out), Source.at(str(source))
    prepare(place, given, TINY)
    job = UnitContext(TINY, given.root, place, ffmpeg.build(), "killed")
    plan = Plan(place, TINY)
    for shard, _ in plan.shards():
        for unit in plan.units(shard):
            screened = screen_unit(job, unit)
            scenes = asyncio.run(UnitJudge(TINY, None, place, "killed").decide(unit, screened)).scenes
            cut_unit(job, unit, screened, scenes)
    return out


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


Damage = Callable[[Path], None]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512] if path.stat().st_size > 2048 else path.read_bytes()[:-8])


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def told(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    return [record.message for record in caplog.records if name in record.message]


def build_without_film(source: Path, out: Path) -> None:
    """As for somebody who moved the videos once the dataset was made."""
    film = source.parent / "film.mp4"
    away = film.rename(source.parent / "moved.mp4")
    try:
        build_inline(source, out, TINY)
    finally:
        away.rename(film)


# ---- what is sealed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "damage"),
    [
        (LAST.receipt, empty),
        (LAST.receipt, cut_short),
        (LAST.receipt, gone),
        (LAST.tar, empty),
        (LAST.tar, gone),
        (LAST.offsets, cut_short),
        (LAST.offsets, gone),
    ],
    ids=lambda value: getattr(value, "__name__", str(value).rpartition("nsp-000001.")[2]),
)
def test_a_sealed_shard_that_differs_from_its_receipt_is_made_again_and_named(
    source: Path, built: Path, out: Path, caplog: pytest.LogCaptureFixture, path: str, damage: Damage
) -> None:
    shutil.copytree(built, out)
    damage(out / path)
    build_inline(source, out, TINY)
    assert 1 <= len(told(caplog, path)) <= 2  # a receipt is missed, and found again
    assert_same_dataset(built, out, TINY)
    assert_conserved(out, TINY)
    assert files(out).keys() == files(built).keys()


@pytest.mark.parametrize(
    ("path", "damage"),
    [(LAST.tar, cut_short), (LAST.ledger, empty), (LAST.ledger, cut_short), (LAST.ledger, gone)],
    ids=lambda value: getattr(value, "__name__", str(value).rpartition("nsp-000001.")[2]),
)
def test_what_is_whole_of_a_damaged_shard_is_not_deleted_and_the_remedy_is_one(
    source: Path, built: Path, out: Path, path: str, damage: Damage
) -> None:
    """The source may not give it again."""
    shutil.copytree(built, out)
    damage(out / path)
    before = files(out)
    with pytest.raises(RunStopped, match=rf"{path} .*restore it from a copy, or delete {LAST.tar}, "):
        build_inline(source, out, TINY)
    assert files(out) == before
    for named in (LAST.tar, LAST.offsets, LAST.receipt, LAST.ledger):
        (out / named).unlink(missing_ok=True)
    build_inline(source, out, TINY)
    assert_same_dataset(built, out, TINY)
    assert_conserved(out, TINY)


@pytest.mark.parametrize("damage", [empty, gone])
def test_a_lost_receipt_is_made_of_tar_and_ledger_though_the_source_is_gone(
    source: Path, built: Path, out: Path, damage: Damage
) -> None:
    shutil.copytree(built, out)
    damage(out / LAST.receipt)
    build_without_film(source, out)
    assert files(out)[LAST.tar] == files(built)[LAST.tar]
    assert_same_dataset(built, out, TINY)
    assert_conserved(out, TINY)


def test_a_tar_that_no_receipt_lists_stays_while_its_clips_cannot_be_made_again(
    source: Path, built: Path, out: Path
) -> None:
    shutil.copytree(built, out)
    for path in (LAST.receipt, LAST.ledger):
        gone(out / path)
    with pytest.raises(StorageFault, match="is the right disk mounted"):
        build_without_film(source, out)
    assert LAST.tar in files(out) and LAST.receipt not in files(out)
    build_inline(source, out, TINY)
    assert_same_dataset(built, out, TINY)


def test_a_retry_goes_on_after_a_sealed_tar_was_lost(
    source: Path, built: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(built, out)
    gone(out / LAST.tar)
    build_inline(source, out, TINY, retry=frozenset(["failed"]))
    assert_same_dataset(built, out, TINY)


@pytest.mark.parametrize(("kind", "concluded"), [("receipt", True), ("tar", True), ("tar", False)])
def test_without_the_files_of_any_shard_a_disk_is_missing_and_none_is_deleted(
    source: Path, built: Path, out: Path, kind: str, concluded: bool
) -> None:
    shutil.copytree(built, out)
    if not concluded:
        gone(out / "manifest.json")
    for name in (ShardName("train", 0), LAST):
        gone(out / getattr(name, kind))
    before = files(out)
    with pytest.raises(RunStopped, match=rf"none (of them )?has its {kind} any more.*mount the disk.*delete "):
        build_inline(source, out, TINY)
    assert files(out) == before


@pytest.mark.parametrize("concluded", [True, False])
def test_a_lost_disk_of_ledgers_deletes_no_tar(source: Path, built: Path, out: Path, concluded: bool) -> None:
    shutil.copytree(built, out)
    if not concluded:
        gone(out / "manifest.json")
    shutil.rmtree(out / "ledger")
    before = files(out)
    with pytest.raises(RunStopped, match="restore it from a copy"):
        build_inline(source, out, TINY)
    assert files(out) == before


def test_what_sums_up_is_written_again_wherever_it_is_empty(source: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / built.name  # which is in the texts
    shutil.copytree(built, out)
    summing_up = ["manifest.json", "summary.json", "index/train.parquet", "README.md", "croissant.json"]
    summing_up += [".nv-meta/index.sqlite", ".nv-meta/index.uuid", ".nv-meta/split.yaml", "wids-train.json"]
    for path in summing_up:
        empty(out / path)
    build_inline(source, out, TINY)
    again, before = files(out), files(built)
    assert [path for path in summing_up if again[path] != before[path] and path != "summary.json"] == []
    assert again["summary.json"]
    for path in summing_up:
        cut_short(out / path)
    build_inline(source, out, TINY)
    again = files(out)
    assert [path for path in summing_up if again[path] != before[path] and path != "summary.json"] == []


def test_an_edited_card_is_kept_beside_the_new_one(
    source: Path, built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / built.name
    shutil.copytree(built, out)
    edited = files(out)["README.md"] + b"license: mine"
    (out / "README.md").write_bytes(edited)
    build_inline(source, out, TINY)
    aside = f"README.edited-{hashlib.sha256(edited).hexdigest()[:8]}.md"
    assert (files(out)[aside], files(out)["README.md"]) == (edited, files(built)["README.md"])
    assert len(told(caplog, aside)) == 1


@pytest.mark.parametrize("name", ["train-00000004.bak", "train-00000004.parquet~", "train-00000004 (copy).parquet"])
def test_a_stray_file_among_the_ledgers_of_units_is_none_of_them(
    source: Path, built: Path, begun: Path, out: Path, name: str
) -> None:
    shutil.copytree(begun, out)
    shutil.copy(out / ONE.ledger, out / "ledger" / "units" / name)
    build_inline(source, out, TINY)
    assert_same_dataset(built, out, TINY)
    assert (out / "ledger" / "units" / name).exists()


# ---- work in progress ------------------------------------------------------------------------------------------


def half(path: Path) -> None:
    """Whole blocks of it, so that its size alone does not tell."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 1024 * 512])


def last_block_gone(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


ONE = UnitName("train", 2)


@pytest.mark.parametrize(
    ("path", "damage"),
    [
        (ONE.ledger, empty),
        (ONE.ledger, cut_short),
        (ONE.part, gone),
        (ONE.part, empty),
        (ONE.part, half),
        (ONE.part, last_block_gone),
    ],
    ids=lambda value: getattr(value, "__name__", str(value).rpartition(".")[2]),
)
def test_a_unit_whose_files_are_not_whole_is_done_anew_and_told(
    source: Path, built: Path, begun: Path, out: Path, caplog: pytest.LogCaptureFixture, path: str, damage: Damage
) -> None:
    shutil.copytree(begun, out)
    damage(out / path)
    build_inline(source, out, TINY)
    if (path, damage) != (ONE.ledger, empty):  # as if it had never been committed
        assert len(told(caplog, f"unit {ONE} is done anew")) == 1
    assert_same_dataset(built, out, TINY)
    assert_conserved(out, TINY)


def test_a_shard_that_cannot_be_sealed_says_why(begun: Path, out: Path) -> None:
    shutil.copytree(begun, out)
    gone(out / ONE.part)
    with pytest.raises(CannotSeal, match=ONE.part):
        seal_shard(Storage.at(out), LAST, [ONE])


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}"])
def test_counts_of_crashes_that_cannot_be_read_are_none(tmp_path: Path, data: bytes) -> None:
    out = Storage.at(tmp_path)
    out.write(ONE.crashes, data)
    assert CrashCounts.read(out, ONE) == CrashCounts()


def test_a_probe_that_a_killed_run_left_is_swept_and_nothing_else(source: Path, built: Path, out: Path) -> None:
    shutil.copytree(built, out)
    (out / f".probe-{uuid.uuid4().hex}").write_bytes(b"shared")
    (out / ".probe-notes").write_text("mine")
    build_inline(source, out, TINY)
    assert files(out).keys() - files(built).keys() == {".probe-notes"}


# ---- plan and configuration ------------------------------------------------------------------------------------


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [empty, torn, zeroed])
def test_a_lost_configuration_is_restored_by_a_run_with_the_same_plan(
    source: Path, built: Path, out: Path, caplog: pytest.LogCaptureFixture, damage: Damage
) -> None:
    shutil.copytree(built, out)
    damage(out / "config.toml")
    before = files(out)
    with pytest.raises(UsageError, match=r"config\.toml is damaged"):
        build_inline(source, out, replace(TINY, encode=EncodeConfig(width=96, height=64)))
    assert files(out) == before
    build_inline(source, out, TINY)
    assert len(told(caplog, "config.toml is damaged")) == 1
    assert files(out)["config.toml"] == files(built)["config.toml"]
    assert_same_dataset(built, out, TINY)


def test_a_configuration_by_which_nothing_was_done_is_planned_anew(source: Path, built: Path, out: Path) -> None:
    prepare(Storage.at(out), Source.at(str(source)), TINY)
    empty(out / "config.toml")
    build_inline(source, out, TINY)
    assert_same_dataset(built, out, TINY)


def test_a_configuration_of_something_else_is_left_alone(source: Path, out: Path) -> None:
    out.mkdir()
    (out / "config.toml").write_text("[tool]\nname = 'mine'\n")
    with pytest.raises(UsageError, match="not ours"):
        build_inline(source, out, TINY)
    assert (out / "config.toml").read_text().startswith("[tool]")


@pytest.fixture
def other_source(source: Path) -> Iterator[None]:
    """The source has another caption for a moment."""
    text = source.read_text()
    source.write_text(text.replace("worda", "other"))
    yield
    source.write_text(text)


@pytest.mark.parametrize("damage", [gone, empty, torn])
def test_a_plan_that_was_lost_is_derived_from_the_source_again(
    source: Path, built: Path, out: Path, damage: Damage
) -> None:
    shutil.copytree(built, out)
    damage(out / "plan.parquet")
    build_inline(source, out, TINY)
    assert files(out)["plan.parquet"] == files(built)["plan.parquet"]
    assert_same_dataset(built, out, TINY)


@pytest.mark.parametrize(
    ("damage", "what", "columns"),
    [(gone, "plan.parquet", ()), (torn, "plan.parquet", ["digest"]), (empty, "config.toml", ["digest"])],
)
def test_a_damaged_plan_of_an_older_version_is_derived_from_the_source(
    source: Path, out: Path, damage: Damage, what: str, columns: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    older = partial(write_plan, columns=frozenset(columns))
    with monkeypatch.context() as patch:
        patch.setattr("nextscene.curation.run.prepare.write_plan", older)
        build_inline(source, out, TINY)
    assert OPTIONAL_COLUMNS & {*pq.read_schema(out / "plan.parquet").names} == {*columns}
    before = files(out)
    damage(out / what)
    build_inline(source, out, TINY)
    assert files(out)[what] == before[what] and files(out)["plan.parquet"] == before["plan.parquet"]
    assert_conserved(out, TINY)


@pytest.mark.usefixtures("other_source")
def test_a_lost_plan_or_configuration_of_another_source_is_not_made_up(source: Path, built: Path, out: Path) -> None:
    shutil.copytree(built, out)
    gone(out / "plan.parquet")
    with pytest.raises(UsageError, match="the source does not give the same again"):
        build_inline(source, out, TINY)
    shutil.copy(built / "plan.parquet", out)
    empty(out / "config.toml")
    with pytest.raises(UsageError, match="is damaged"):
        build_inline(source, out, TINY)


def test_the_configuration_records_the_hash_of_the_plan_as_written(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes between the two is found, not vouched for."""
    publish = Storage.atomic_writer

    def spoiled(self: Storage, path: str) -> object:
        spoiling = publish(self, path)
        if path != "plan.parquet":
            return spoiling

        class Spoiling:
            def __enter__(self) -> object:
                return spoiling.__enter__()

            def __exit__(self, *error: object) -> None:
                spoiling.__exit__(*error)  # type: ignore[arg-type]
                torn(out / "plan.parquet")

        return Spoiling()

    place = Storage.at(out)
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "atomic_writer", spoiled)
        made = prepare(place, Source.at(str(source)), TINY)
    prepare(place, Source.at(str(source)), TINY)
    assert file_sha256(place, "plan.parquet") == made.plan_sha256
