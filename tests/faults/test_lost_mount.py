"""A disk that is unmounted in the middle of a run, so that its mount point remains: nothing is written there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from nextscene.common.fence import LOCK
from nextscene.common.local_state import local_state
from nextscene.common.storage import Storage, StorageFault
from nextscene.curation.run import engine
from nextscene.curation.run.engine import Engine
from nextscene.curation.run.unit_judge import UnitJudge
from nextscene.curation.sealing.remaining import ShardWork
from nextscene.curation.sealing.repair import seal_or_redo
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit
from nextscene.evaluation.video_folder import RECORDS, VideoFolder
from nextscene.judge.spending.answer_segments import write_segments
from nextscene.judge.spending.call_journal import JOURNALS
from nextscene.pipelines.build_nsp import main
from nextscene.shards.format.layout import REPORT
from tests.fakes.without_ray import in_this_process
from tests.faults.kill_at_step import TINY
from tests.judge.support import answer
from tests.support import assert_conserved, assert_same_dataset, build_inline, captioned_spans

FLAGS = ["--judge", "none", "--test", "0", "--unit-size", "2", "--units-per-shard", "2"]
FLAGS += ["--rules.min-width", "64", "--rules.min-height", "48", "--encode.width", "64", "--encode.height", "48"]


class InlineEngine:
    """An engine that does its steps one after another, in this process."""

    def __init__(self, job: UnitContext, workers: int | None, waiting: int, check: Callable[[], None]) -> None:
        self._job, self._check = job, check

    def run(self, work: Iterator[ShardWork], tick: Any) -> None:
        judging = UnitJudge(self._job.config, None, self._job.out, self._job.run_id)
        for shard in work:
            for unit in shard.todo:
                screened = screen_unit(self._job, unit)
                cut_unit(self._job, unit, screened, asyncio.run(judging.decide(unit, screened)).scenes)
                self._check()
            seal_or_redo(self._job.out, shard.name, shard.units)


def _plain_page(run: Any) -> str:
    run._out.write(REPORT, b"page")
    return hashlib.sha256(b"page").hexdigest()


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, Engine.__name__, InlineEngine)
    monkeypatch.setattr("nextscene.curation.run.run.supervise", in_this_process)
    monkeypatch.setattr("nextscene.curation.run.build_on_ray.check_shared", lambda _: None)
    monkeypatch.setattr("nextscene.curation.run.run._Run._report", _plain_page)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captioned_spans(tmp_path_factory.mktemp("source"), 5, seconds=0.125, size="64x48")


@pytest.fixture(scope="module")
def undisturbed(source: Path) -> Path:
    build_inline(source, source.parent / "undisturbed", TINY)
    return source.parent / "undisturbed"


def build(source: Path, out: Path) -> tuple[int, str]:
    ended = CliRunner().invoke(main, ["--source", str(source), "--out", str(out), *FLAGS])
    return ended.exit_code, ended.output


@pytest.mark.parametrize(
    ("moment", "leaves"),
    [
        ("plan.parquet", "an empty folder"),
        ("parts/train-00000001.part", "nothing"),
        ("ledger/units/train-00000000.parquet", "an empty folder"),
        ("shards/train/000/nsp-000001.tar", "nothing"),
        ("shards/train/000/nsp-000000.receipt.json", "an empty folder"),
        ("manifest.json", "nothing"),
    ],
)
def test_a_lost_disk_stops_the_run_which_continues_once_it_is_back(
    source: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, leaves: str
) -> None:
    out, away = tmp_path / "out", tmp_path / "away"
    publishing = Storage.atomic_writer

    def vanish() -> None:
        if not away.exists():
            out.rename(away)
            if leaves == "an empty folder":
                out.mkdir()

    def vanishing(self: Storage, path: str) -> AbstractContextManager[Any]:
        if path == moment:
            vanish()
        return publishing(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "atomic_writer", vanishing)
        code, said = build(source, out)
    assert code == 3, said
    assert "disk mounted" in said or "does not see" in said
    assert "damaged" not in said
    assert (list(out.iterdir()) if out.exists() else []) == []
    assert out.exists() == (leaves == "an empty folder")
    if out.exists():
        out.rmdir()
    away.rename(out)
    (out / LOCK).write_bytes(b"")  # the lock of a process that has ended
    code, said = build(source, out)
    assert code == 0, said
    assert_same_dataset(undisturbed, out, TINY)
    assert_conserved(out, TINY)


def test_an_evaluation_writes_nothing_where_its_folder_is_gone(tmp_path: Path) -> None:
    root, away = tmp_path / "out", tmp_path / "away"
    Storage.at(root).write(LOCK, b"held")
    out = Storage.at(root).with_anchor(LOCK)
    videos = VideoFolder(out.subfolder("model"), "videos")
    records = [{"file": "a.mp4", "fps": 16.0}]
    videos.claim(records)
    assert (root / "model" / RECORDS).is_file()
    root.rename(away)
    before = sorted(away.rglob("*"))

    acts = (
        lambda: write_segments(out, [answer("a")]),
        lambda: local_state(out, JOURNALS),
        lambda: videos.claim([{"file": "b.mp4"}]),
        lambda: videos.put(records, np.zeros((1, 1, 64, 64, 3), np.uint8)),
        lambda: VideoFolder(out.subfolder("other"), "videos").claim([{"file": "b.mp4"}]),
    )
    for act in acts:
        with pytest.raises(StorageFault, match=r"run\.lock is gone; is the disk mounted\?"):
            act()
    assert list(tmp_path.iterdir()) == [away] and sorted(away.rglob("*")) == before
