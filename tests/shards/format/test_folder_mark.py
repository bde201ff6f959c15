"""The mark: what is ours is known, what is not is left as it is, and what older versions left continues."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextscene.common.storage import Storage, StorageFault
from nextscene.shards.format.folder_mark import (
    DATASET,
    EVALUATION,
    LATENTS,
    RUN,
    SHAPES,
    TOYS,
    VIDEOS,
    NotOurs,
    check,
    claim,
    claimed,
)
from nextscene.shards.format.layout import MARK
from tests.foreign import FOREIGN, lay, marked, tree

pytestmark = pytest.mark.slow

KINDS = (DATASET, LATENTS, RUN, VIDEOS, EVALUATION, TOYS, SHAPES)


def plan(path: Path) -> None:
    with pq.ParquetWriter(path, pa.schema([("clip_id", pa.string())])) as writer:
        writer.add_key_value_metadata({"nextscene.shards": "train 1"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("there", ["", "new/deep", "empty"])
def test_an_empty_or_new_folder_is_marked_first_and_is_ours_from_then_on(tmp_path: Path, kind: str, there: str) -> None:
    (tmp_path / "empty").mkdir()
    out = claim(Storage.at(tmp_path / there / kind), kind)
    assert json.loads(out.read(MARK)) == {"kind": kind, "version": 1}
    out.write("a/b", b"x")
    before = tree(tmp_path)
    assert claim(Storage.at(tmp_path / there / kind), kind) == out
    assert tree(tmp_path) == before
    out.delete(MARK)
    with pytest.raises(StorageFault, match=r"nextscene\.json is gone"):
        out.write("a/c", b"x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FOREIGN)
def test_what_others_hold_is_refused_and_not_touched(tmp_path: Path, kind: str, name: str) -> None:
    before = tree(lay(tmp_path, name))
    for action in (claim, check):
        with pytest.raises(NotOurs, match="name"):
            action(Storage.at(tmp_path), kind)
    with pytest.raises(NotOurs), claimed(Storage.at(tmp_path), kind):
        raise AssertionError
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_another_kind_is_refused_with_what_it_is(tmp_path: Path, kind: str) -> None:
    for other in KINDS:
        folder = marked(tmp_path / other, other)
        before = tree(folder)
        if other != kind:
            with pytest.raises(NotOurs, match=r"holds .*, not .*; name another folder"):
                claim(Storage.at(folder), kind)
        else:
            claim(Storage.at(folder), kind)
        assert tree(folder) == before


# ---- what does not count, and what versions before the mark have left ----------------------------------------------

HOLDER = json.dumps({"run_id": "20260101T000000-aaaaaa", "host": "h", "pid": 1})
HEX = "0123456789abcdef" * 2
NOTHING: dict[str, str] = {
    "lost+found/": "",
    ".DS_Store": "x",
    "._.DS_Store": "x",
    ".Trash-1000/files/a": "x",
    "System Volume Information/a": "x",
    "Thumbs.db": "x",
    ".gitkeep": "",
    ".gitignore": "*",
    ".nfs00000001": "x",
    ".snapshot/daily/a": "x",
}
BEGUN: dict[str, dict[str, dict[str, str]]] = {
    DATASET: {
        "a lock": {"run.lock": HOLDER},
        "a lock cut short": {"run.lock": ""},
        "drafts": {".run.lock.0123abcd.unfinished": "", ".plan.parquet.89abcdef.unfinished": "PAR1"},
        "a probe": {f".probe-{HEX}": "shared"},
        "paid answers": {"calls/account.json": "{}", "calls/train/000/000000/1-2.jsonl.gz": "x"},
        "empty folders": {"calls/": "", "parts/": "", "ledger/": ""},
        "an emptied mark": {"nextscene.json": ""},
        "an emptied plan": {"plan.parquet": "", "config.toml": ""},
    },
    RUN: {
        "toys": {"tiny/nextscene.json": '{"kind": "toys", "version": 1}', "tiny/ltx/a": "x"},
        "a stage": {"sft/checkpoints/": "", "sft/metrics.jsonl": "", "sft/tensorboard/events.out": "x"},
        "older toys": {"tiny/made.json": '{"version": 2, "steps": 1, "shards": "x"}', "tiny/ltx/a": "x"},
    },
    EVALUATION: {
        "a model's folder": {"nsp/videos/": "", "calls/account.json": "{}", "run.lock": HOLDER},
        "a draft": {"nsp/videos/": "", "nsp/.videos.jsonl.0123abcd.unfinished": "{"},
    },
}
ABOUT = json.dumps(
    {"recipe": "sft", "stage": "sft", "step": 10, "samples": 4, "world": 1, "model": "x", "bridge": {}}
    | {"parameters": ["transformer.blocks.weight"] * 9999, "determining": {}, "loader": {}},
    indent=1,
)
STEP = '{"event": "step", "step": 1, "loss": 0.5, "lr": 1.0}\n'
LEFT: dict[str, dict[str, dict[str, str]]] = {
    DATASET: {"a configuration": {"config.toml": 'plan_sha256 = "x"\n', "plan.parquet": "", "notes.txt": "mine"}},
    LATENTS: {"a card": {"README.md": "Latents of the clips of a dataset, made by the autoencoder of LTX-Video (…)"}},
    RUN: {
        "a checkpoint": {"sft/checkpoints/step-10/about.json": ABOUT, "sft/checkpoints/step-11.unfinished/x": ""},
        "steps before the first": {"sft/checkpoints/": "", "sft/metrics.jsonl": STEP},
        "an export": {"export/nextscene.json": '{"recipe": "sft", "step": 1, "determining": {}}', "notes.txt": "mine"},
    },
    VIDEOS: {
        "records": {"videos.jsonl": '{"file": "0000.mp4", "scene": "a"}\n', "0000.mp4": "x"},
        "claims": {"videos.jsonl": '{"file": "0000.mp4"}\n'},
    },
    EVALUATION: {"records": {"nsp/videos.jsonl": '{"file": "a.mp4"}\n', "nsp/videos/a.mp4": "x", "summary.json": "{}"}},
    TOYS: {"a stamp": {"made.json": '{"version": 2, "steps": 1, "shards": "x"}', "ltx/a": "x", "qwen/a": "x"}},
    SHAPES: {
        "a list": {
            "clips.csv": "video,caption,scene\nclips/a.mp4,x,y\n",
            "clips/": "",
            "held_out.txt": "",
            "rare.txt": "",
        }
    },
}


def put(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).mkdir(parents=True) if path.endswith("/") else (folder / path).write_text(text)


@pytest.mark.parametrize("path", NOTHING)
def test_what_systems_leave_in_a_folder_does_not_count(tmp_path: Path, path: str) -> None:
    put(tmp_path, {path: NOTHING[path]})
    for kind in KINDS:
        with pytest.raises(RuntimeError), claimed(Storage.at(tmp_path), kind):
            raise RuntimeError
    claim(Storage.at(tmp_path), DATASET)
    put(tmp_path / "other", {path: NOTHING[path], "notes.txt": "mine"})
    with pytest.raises(NotOurs, match=r"notes\.txt"):
        claim(Storage.at(tmp_path / "other"), DATASET)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, cases in BEGUN.items() for name in cases])
def test_what_an_older_run_left_that_was_killed_as_it_began_goes_on(tmp_path: Path, kind: str, name: str) -> None:
    put(tmp_path, BEGUN[kind][name])
    claim(Storage.at(tmp_path), kind)
    put(tmp_path / "with", {**BEGUN[kind][name], "notes.txt": "mine"})
    with pytest.raises(NotOurs, match=r"notes\.txt"):
        claim(Storage.at(tmp_path / "with"), kind)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, cases in LEFT.items() for name in cases])
def test_what_an_older_version_left_is_of_its_kind_and_gets_the_mark(tmp_path: Path, kind: str, name: str) -> None:
    put(tmp_path, LEFT[kind][name])
    before = tree(tmp_path)
    for other in KINDS:
        if other != kind:
            with pytest.raises(NotOurs):
                claim(Storage.at(tmp_path), other)
    assert tree(tmp_path) == before
    assert json.loads(claim(Storage.at(tmp_path), kind).read(MARK))["kind"] == kind


TORN: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda mark: mark[: len(mark) // 2],
    "zeros": lambda mark: bytes(len(mark)),
    "emptied": lambda _: b"",
    "half zeros": lambda mark: mark[:9] + bytes(len(mark) - 9),
}


@pytest.mark.parametrize("damage", TORN)
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, cases in LEFT.items() for name in cases])
def test_a_mark_that_is_torn_is_written_anew_where_the_folder_is_known(
    tmp_path: Path, kind: str, name: str, damage: str
) -> None:
    put(tmp_path, LEFT[kind][name])
    claim(Storage.at(tmp_path), kind)
    whole = (tmp_path / MARK).read_bytes()
    (tmp_path / MARK).write_bytes(TORN[damage](whole))
    before = tree(tmp_path)
    for other in KINDS:
        if other != kind:
            with pytest.raises(NotOurs):
                claim(Storage.at(tmp_path), other)
    assert not check(Storage.at(tmp_path), kind) and tree(tmp_path) == before
    claim(Storage.at(tmp_path), kind)
    assert (tmp_path / MARK).read_bytes() == whole


@pytest.mark.parametrize("mark", ['{"kind": "run", "version": 1}', '{"kind": "dataset", "version": 2}', "{}", "7"])
def test_a_mark_of_something_else_is_refused_though_the_folder_is_known(tmp_path: Path, mark: str) -> None:
    put(tmp_path, {**LEFT[DATASET]["a configuration"], MARK: mark})
    before = tree(tmp_path)
    with pytest.raises(NotOurs):
        claim(Storage.at(tmp_path), DATASET)
    assert tree(tmp_path) == before


def test_a_plan_without_a_configuration_is_an_older_run_s(tmp_path: Path) -> None:
    plan(tmp_path / "plan.parquet")
    claim(Storage.at(tmp_path), DATASET)


# ---- nothing is left behind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("there", [False, True])
def test_a_mistake_leaves_neither_mark_nor_folder(tmp_path: Path, there: bool, error: type[BaseException]) -> None:
    out = tmp_path / "a" / "b"
    if there:
        out.mkdir(parents=True)
    with pytest.raises(error), claimed(Storage.at(out), DATASET) as ours:
        ours.write("run.lock", b"")
        ours.delete("run.lock")
        raise error
    assert [path.name for path in tmp_path.rglob("*")] == (["a", "b"] if there else [])


def test_the_mark_stays_where_something_was_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError), claimed(Storage.at(tmp_path), DATASET) as ours:
        ours.write("plan.parquet", b"x")
        raise ValueError
    assert {path.name for path in tmp_path.iterdir()} == {"plan.parquet", MARK}


def _fail(out: Path) -> None:
    with pytest.raises(ValueError), claimed(Storage.at(out), DATASET):
        raise ValueError


@pytest.mark.parametrize("there", [False, True])
def test_a_start_that_fails_leaves_the_mark_to_one_that_runs(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "new" / "out"
    if there:
        out.mkdir(parents=True)
    with ExitStack() as running:
        with pytest.raises(ValueError), claimed(Storage.at(out), DATASET):
            ours = running.enter_context(claimed(Storage.at(out), DATASET))
            raise ValueError
        _fail(out)
        ours.write("plan.parquet", b"x")


def test_a_mark_that_is_removed_as_another_start_finds_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start fails after the second has seen its mark, or made its folder, and before it holds it."""
    opened, out = os.open, tmp_path / "out"

    def late(*asked: Any) -> int:
        if str(asked[0]).endswith(MARK):
            monkeypatch.setattr(os, "open", opened)
            shutil.rmtree(out)
        return opened(*asked)

    monkeypatch.setattr(os, "open", late)
    with claimed(Storage.at(out), DATASET) as ours:
        ours.write("plan.parquet", b"x")
    create = Storage.create
    shutil.rmtree(out)

    def later(self: Storage, path: str, data: bytes) -> bool:
        monkeypatch.setattr(Storage, "create", create)
        out.rmdir()
        return create(self, path, data)

    monkeypatch.setattr(Storage, "create", later)
    with claimed(Storage.at(out), DATASET) as ours:
        ours.write("plan.parquet", b"x")


@pytest.mark.parametrize("folder", [".", "new/out"])
def test_of_many_starts_those_that_fail_disturb_none(tmp_path: Path, folder: str) -> None:
    def start(number: int, out: Path) -> None:
        if number % 2:
            _fail(out)
            return
        with claimed(Storage.at(out), DATASET) as ours:
            ours.write(f"parts/{number}", b"x")

    with ThreadPoolExecutor(8) as pool:
        for turn in range(20):
            out = tmp_path / str(turn) / folder
            (tmp_path / str(turn)).mkdir()
            list(pool.map(start, range(8), [out] * 8))
            assert {path.name for path in out.iterdir()} == {MARK, "parts"}
            assert {path.name for path in (out / "parts").iterdir()} == {"0", "2", "4", "6"}


def test_a_folder_that_vanished_is_not_tidied(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(StorageFault), claimed(Storage.at(out), DATASET) as ours:
        out.rename(tmp_path / "elsewhere")
        out.mkdir()
        ours.write("plan.parquet", b"x")
    assert list(out.iterdir()) == [] and (tmp_path / "elsewhere" / MARK).exists()


# ---- places that cannot be -----------------------------------------------------------------------------------------


def _below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("mine")
    return folder / "file" / "x" / "y"


def _dangling(folder: Path, to: str = "nowhere") -> Path:
    (folder / "link").symlink_to(folder / to)
    return folder / "link"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_below_a_file, "lies below a file"),
        (lambda folder: _below_a_file(folder).parent.parent, "is a file"),
        (_dangling, r"link is a link to a place that is not there; make that, or name another folder"),
        (lambda folder: _dangling(folder) / "x", "x lies below a link, .*/link, to a place that is not there"),
        (lambda folder: _dangling(folder, "link"), "is a link to a place that is not there|levels of symbolic links"),
        (lambda _: Path("/proc/x"), "is not a place for a folder: No such file"),
        (lambda _: Path("/dev/null/x"), "lies below a file, /dev/null"),
        (lambda folder: folder / ("x" * 300), "File name too long"),
    ],
)
def test_a_place_where_no_folder_can_be_is_told(tmp_path: Path, make: Callable[[Path], Path], told: str) -> None:
    out = make(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(NotOurs, match=told):
        claim(Storage.at(out), DATASET)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EROFS, "; make it writable"), (errno.EACCES, "; make it writable"), (errno.ENOSPC, "")],
)
def test_a_place_that_is_read_only_or_full_is_a_fault_that_can_be_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "as the disk says")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageFault, match=f"{tmp_path}/out: as the disk says{remedy}"):
        claim(Storage.at(tmp_path / "out"), DATASET)


def test_of_two_that_claim_at_once_neither_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second looks for the mark just before the first has written it, and a file."""
    stat = Storage.stat

    def late(out: Storage, path: str) -> None:
        monkeypatch.setattr(Storage, "stat", stat)
        claim(out, LATENTS).write("README.md", b"x")

    monkeypatch.setattr(Storage, "stat", late)
    claim(Storage.at(tmp_path), LATENTS)


def test_a_folder_of_many_files_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = claim(Storage.at(tmp_path), DATASET)
    for name in ("names", "files"):
        monkeypatch.setattr(Storage, name, None)
    assert claim(replace(out, anchor=""), DATASET) == out
