"""What is known of a dataset, a shard or a clip is what its files say, whichever of them are there."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.common import ffmpeg
from nextscene.common.errors import DamagedRecord, UsageError
from nextscene.common.storage import Storage
from nextscene.curation.inspect import (
    OpenDataset,
    clip_history,
    dataset_overview,
    extract,
    find_clip,
    find_shard,
    read_dataset,
    shard_history,
    shard_named,
)
from nextscene.curation.plan import Plan
from nextscene.curation.run.locations import open_out
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sealing.remaining import ShardWork, remaining
from nextscene.curation.sealing.seal_shard import seal_shard
from nextscene.curation.sources import Source
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit
from nextscene.shards.format.layout import ShardName
from tests.shards.samples import sample, sample_of, seal_dataset
from tests.support import SMALL, build_inline, captioned_spans, ledger

CLIPS = 7
TRAIN, TEST = ShardName("train", 0), ShardName("test", 0)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of spans, one of which lies behind the end of the video."""
    folder = tmp_path_factory.mktemp("built")
    source = captioned_spans(folder, CLIPS - 1)
    lines = source.read_text().splitlines()
    source.write_text("\n".join([*lines, "film.mp4,90,91,far behind the end"]) + "\n")
    build_inline(source, folder / "out", SMALL)
    return folder / "out"


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "out"))


def opened(out: Path) -> OpenDataset:
    return OpenDataset.at(Storage.at(out), SMALL)


def published(out: Path, *kept: str) -> OpenDataset:
    """The dataset with nothing but its shards, manifest, index and what else is kept."""
    for entry in out.iterdir():
        if entry.name not in ("shards", "manifest.json", "index", *kept):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return OpenDataset.at(Storage.at(out), None)


def in_tars(out: Path) -> dict[str, bytes]:
    """Member name → contents, as the standard library reads the tars."""
    found = {}
    for path in sorted(out.rglob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    return found


# ---- a clip ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letters", [6, 11, 24])
def test_every_planned_clip_is_found_by_its_id_and_by_the_beginning_of_it(built: Path, letters: int) -> None:
    for row in ledger(built):
        found = clip_history(opened(built), find_clip(opened(built), row.clip_id[:letters]))
        assert found.planned is not None
        assert found.ledger == row
        assert (found.clip_id, found.planned.clip_id, found.standing) == (row.clip_id, row.clip_id, "sealed")
        assert (found.sample is not None) == row.kept
        assert found.missing == ()


def test_without_a_plan_clips_are_found_in_the_ledger_and_in_the_index(out: Path) -> None:
    rows = ledger(out)
    copy = published(out, "ledger")
    for row in rows:
        found = clip_history(copy, find_clip(copy, row.clip_id))
        assert (found.ledger, found.planned, found.missing) == (row, None, ("config.toml", "plan.parquet"))


def test_a_published_copy_knows_only_clips_in_shards_and_says_so(out: Path) -> None:
    rows = ledger(out)
    copy = published(out)
    for row in rows:
        if row.kept:
            found = clip_history(copy, find_clip(copy, row.clip_id[:8]))
            assert found.sample is not None
            assert found.sample.record["caption"] == row.caption
            assert (found.ledger, found.rounds, found.calls) == (None, (), ())
            assert found.missing == ("config.toml", "plan.parquet", "ledger")
        else:
            with pytest.raises(UsageError, match="only those in shards are known"):
                find_clip(copy, row.clip_id)


def test_a_sample_lies_where_another_reader_finds_it(built: Path) -> None:
    contents = in_tars(built)
    for row in ledger(built):
        found = clip_history(opened(built), find_clip(opened(built), row.clip_id)).sample
        if found is None:
            assert f"{row.clip_id}.json" not in contents
            continue
        assert found.damage == ""
        assert found.record == json.loads(contents[f"{row.clip_id}.json"])
        assert found.text.encode() == contents[f"{row.clip_id}.txt"]
        assert found.sizes == {member: len(contents[f"{row.clip_id}.{member}"]) for member in ("json", "mp4", "txt")}
        with tarfile.open(built / found.tar) as tar:
            assert tar.getmember(f"{row.clip_id}.json").offset == found.offset


def test_an_ambiguous_or_too_short_prefix_names_the_matching_ids(tmp_path: Path) -> None:
    place = seal_dataset(tmp_path, {TRAIN: [sample(number) for number in range(3)]})
    ids = [f"{number:024x}" for number in range(3)]
    for begin in ("000", "000000", ids[0][:23]):
        with pytest.raises(UsageError) as said:
            find_clip(OpenDataset.at(place, None), begin)
        assert all(clip_id in str(said.value) for clip_id in ids)


def test_a_whole_id_is_found_though_another_begins_with_it(tmp_path: Path) -> None:
    short = sample(0)
    longer = sample_of(replace(short.record, clip_id=f"{short.key}ab"), short.media, "longer")
    place = seal_dataset(tmp_path, {TRAIN: [longer, short]})
    assert find_clip(OpenDataset.at(place, None), short.key).clip_id == short.key
    assert find_clip(OpenDataset.at(place, None), f"{short.key}a").clip_id == longer.key


def test_an_unknown_id_names_the_nearest(built: Path) -> None:
    known = ledger(built)[0].clip_id
    mistyped = known[:-1] + ("0" if known[-1] != "0" else "1")
    with pytest.raises(UsageError, match=f"{mistyped}.*nearest: {known}"):
        find_clip(opened(built), mistyped)


# ---- a shard, a dataset ----------------------------------------------------------------------------------------


def test_a_shard_has_every_clip_that_was_planned_for_it_once(built: Path) -> None:
    found = [shard_history(opened(built), name) for name in CommittedState.read(Storage.at(built), 2).sealed.values()]
    told = [one.key for shard in found for one in shard.samples] + [one.clip_id for s in found for one in s.not_kept]
    assert sorted(told) == sorted(row.clip_id for row in ledger(built))
    assert {one.clip_id: one.reason for shard in found for one in shard.not_kept} == {
        row.clip_id: row.reason for row in ledger(built) if not row.kept
    }
    assert [shard.bytes for shard in found] == [(built / shard.tar).stat().st_size for shard in found]
    assert [shard.planned for shard in found] == [shard.decided for shard in found]
    assert not any(shard.damages for shard in found)


@pytest.mark.parametrize("without_summary", [False, True])
def test_a_glance_adds_up_to_the_plan_the_tars_and_the_ledger(out: Path, without_summary: bool) -> None:
    if without_summary:
        (out / "summary.json").unlink()
    now = dataset_overview(opened(out))
    ends = Counter((row.outcome, row.reason) for row in ledger(out))
    assert {(outcome, reason): count for outcome, reason, count in now.outcomes or ()} == ends
    assert (now.planned, now.decided, now.complete, now.judge) == (CLIPS, CLIPS, True, "none")
    assert sum(split.samples for split in now.splits) == len(in_tars(out)) / 3 == ends["kept", ""]
    assert sum(split.bytes for split in now.splits) == sum(path.stat().st_size for path in out.rglob("*.tar"))
    assert sum(split.shards for split in now.splits) == len(list(out.rglob("*.tar")))


def test_a_published_copy_says_who_judged_from_its_first_sample(out: Path) -> None:
    now = dataset_overview(published(out))
    assert (now.judge, now.planned, now.outcomes, now.complete) == ("none", None, None, True)
    assert now.missing == ("config.toml", "plan.parquet", "ledger")


def test_no_dataset_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no dataset"):
        OpenDataset.at(Storage.at(tmp_path), None)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("train/nsp-000003", ShardName("train", 3)),
        ("test/nsp-000003-r2", ShardName("test", 3, 2)),
        ("shards/train/000/nsp-000003.tar", ShardName("train", 3)),
        ("/a/b/shards/train/001/nsp-001003-r1.tar", ShardName("train", 1003, 1)),
        ("/a/b/../b/ledger/train/000/nsp-000003.parquet", ShardName("train", 3)),
        ("0123456789abcdef", None),
        ("train/other-000003", None),
    ],
)
def test_a_shard_is_known_by_its_name_and_by_the_path_of_its_files(text: str, name: ShardName | None) -> None:
    assert shard_named(Storage.at("/a/b"), text) == name


@pytest.mark.parametrize("root", ["/a/c", "/a/b/c", "a/b", "s3://a/b"])
def test_the_path_of_a_shard_in_another_dataset_is_refused(root: str) -> None:
    with pytest.raises(UsageError, match="is not in /a/b"):
        shard_named(Storage.at("/a/b"), f"{root}/shards/train/000/nsp-000003.tar")


def test_a_shard_that_is_not_there_is_refused_with_those_that_are(built: Path) -> None:
    with pytest.raises(UsageError, match="no shard test/nsp-000000, but train/nsp-000000 to train/nsp-000001"):
        find_shard(opened(built), TEST)


def test_a_shard_made_anew_is_found_by_its_planned_name_and_by_its_own(tmp_path: Path) -> None:
    again = ShardName("train", 0, 2)
    now = OpenDataset.at(seal_dataset(tmp_path, {again: [sample(0)]}), None)
    assert find_shard(now, TRAIN) == find_shard(now, again) == again
    with pytest.raises(UsageError, match="nsp-000000-r1 is not there; there is train/nsp-000000-r2"):
        find_shard(now, ShardName("train", 0, 1))
    assert clip_history(now, find_clip(now, sample(0).key)).shard == str(again)


# ---- a run at work ---------------------------------------------------------------------------------------------


def begin(folder: Path) -> tuple[UnitContext, ShardWork]:
    """A run that has committed its first unit of two, and not sealed its shard."""
    source = Source.at(str(captioned_spans(folder, 4)))
    out = open_out(str(folder / "out"))
    prepare(out, source, SMALL)
    job = UnitContext(SMALL, source.root, out, ffmpeg.build(), "inline")
    work = next(remaining(Plan(out, SMALL), CommittedState.read(out, SMALL.units_per_shard), out))
    finish(job, work, 0)
    return job, work


def finish(job: UnitContext, work: ShardWork, unit: int) -> None:
    todo = work.todo[unit]
    cut_unit(job, todo, screen_unit(job, todo), [None] * len(todo.clips))


def test_a_clip_is_waiting_then_committed_then_sealed(tmp_path: Path) -> None:
    job, work = begin(tmp_path)
    clips = [clip.clip_id for unit in work.todo for clip in unit.clips]

    def standings() -> list[str]:
        now = opened(tmp_path / "out")
        return [clip_history(now, find_clip(now, clip_id)).standing for clip_id in clips]

    assert standings() == ["committed"] * 2 + ["waiting"] * 2
    half = shard_history(opened(tmp_path / "out"), TRAIN)
    assert (half.sealed, half.planned, half.decided, half.kept, half.samples) == (False, 4, 2, 2, ())
    now = dataset_overview(opened(tmp_path / "out"))
    assert (now.planned, now.decided, now.complete, now.splits) == (4, 2, False, ())
    finish(job, work, 1)
    seal_shard(job.out, work.name, work.units)
    assert standings() == ["sealed"] * 4
    now = dataset_overview(opened(tmp_path / "out"))
    assert (now.decided, now.complete, now.splits[0].samples) == (4, True, 4)


def test_what_is_moved_while_it_is_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    """A shard is sealed, and its units' ledgers go, between the listing and the reading."""
    job, work = begin(tmp_path)
    finish(job, work, 1)
    seen = []

    def see(now: OpenDataset) -> int | None:
        seen.append(now.state)
        if len(seen) == 1:
            seal_shard(job.out, work.name, work.units)
        return shard_history(now, find_shard(now, TRAIN)).decided

    assert read_dataset(job.out, SMALL, see) == 4
    assert len(seen) == 2


def test_what_is_gone_for_good_is_said_to_be(out: Path) -> None:
    (out / "ledger/train/000/nsp-000000.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="nsp-000000"):
        read_dataset(Storage.at(out), SMALL, lambda now: shard_history(now, TRAIN))


# ---- damage ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return seal_dataset(tmp_path_factory.mktemp("three"), {TRAIN: [sample(number) for number in range(3)]})


@settings(max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_damages_just_the_sample_that_holds_it(three: Storage, share: float, flip: int) -> None:
    path = Path(three.full_path(TRAIN.tar))
    whole = path.read_bytes()
    at = int(share * len(whole))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    try:
        found = shard_history(OpenDataset.at(three, None), TRAIN).samples
    finally:
        path.write_bytes(whole)
    ends = [*(one.offset for one in found[1:]), len(whole) - 1024]
    holds_it = [one.offset <= at < end for one, end in zip(found, ends, strict=True)]
    assert [one.damage != "" for one in found] == holds_it


@pytest.mark.parametrize("change", ["gone", "longer", "shorter"])
def test_a_tar_of_another_length_damages_every_sample(out: Path, change: str) -> None:
    path = out / TRAIN.tar
    data = path.read_bytes()
    path.unlink() if change == "gone" else path.write_bytes(data + b"\0" if change == "longer" else data[:-1])
    found = shard_history(opened(out), TRAIN)
    assert len(found.damages) == len(found.samples) > 0


@pytest.mark.parametrize(("column", "value"), [(0, -512), (0, 1 << 50), (2, 1 << 50), (1, -1)])
def test_a_receipt_that_points_out_of_its_tar_makes_nobody_read_there(out: Path, column: int, value: int) -> None:
    path = out / TRAIN.receipt
    receipt = json.loads(path.read_text())
    receipt["places"][0][column] = value
    path.write_text(json.dumps(receipt))
    with pytest.raises(DamagedRecord, match=f"{TRAIN.receipt} is inconsistent"):
        shard_history(opened(out), TRAIN)


def test_a_ledger_and_a_receipt_that_contradict_each_other_are_damage(out: Path) -> None:
    path = out / TRAIN.receipt
    receipt = json.loads(path.read_text())
    lost = receipt["clip_ids"][0]
    receipt["clip_ids"][0] = "0" * 24
    path.write_text(json.dumps(receipt))
    with pytest.raises(DamagedRecord, match=lost):
        clip_history(opened(out), find_clip(opened(out), lost))


def test_a_plan_that_is_cut_short_is_damage(out: Path) -> None:
    path = out / "plan.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DamagedRecord, match=r"plan\.parquet"):
        dataset_overview(opened(out))
    with pytest.raises(DamagedRecord, match=r"plan\.parquet"):
        find_clip(opened(out), "0" * 24)


# ---- taking out ------------------------------------------------------------------------------------------------


def test_extracted_files_are_the_members_of_the_tar(built: Path, tmp_path: Path) -> None:
    found = shard_history(opened(built), TRAIN)
    names = extract(Storage.at(built), TRAIN, [one.key for one in found.samples], Storage.at(tmp_path / "new"))
    files = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    with tarfile.open(built / TRAIN.tar) as tar:
        assert files == {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    assert sorted(names) == sorted(files)


def test_nothing_is_overwritten_and_then_nothing_is_written(built: Path, tmp_path: Path) -> None:
    keys = [one.key for one in shard_history(opened(built), TRAIN).samples]
    (tmp_path / f"{keys[-1]}.txt").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        extract(Storage.at(built), TRAIN, keys, Storage.at(tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {f"{keys[-1]}.txt": "mine"}


def test_a_folder_that_is_a_file_is_refused(built: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        extract(Storage.at(built), TRAIN, [], Storage.at(tmp_path / "file"))


@pytest.mark.parametrize("key", ["../../outside", "/outside", "..", ""])
def test_a_key_that_leads_out_of_the_folder_is_not_followed(out: Path, tmp_path: Path, key: str) -> None:
    path = out / TRAIN.receipt
    receipt = json.loads(path.read_text())
    receipt["clip_ids"][0] = key
    path.write_text(json.dumps(receipt))
    before = {path for path in tmp_path.rglob("*") if out not in path.parents}
    with pytest.raises(DamagedRecord, match="not all keys"):
        extract(Storage.at(out), TRAIN, [key], Storage.at(tmp_path / "new"))
    assert {path for path in tmp_path.rglob("*") if out not in path.parents} == before
