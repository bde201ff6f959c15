"""`python pipelines/report.py OUT`, as a user runs it: on a dataset, a run and an evaluation."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import REPORT
from tests.command import Ended, Place
from tests.evaluation.report.made import write_evaluation
from tests.support import SMALL, assert_conserved, build_inline, captioned_spans
from tests.training.report.made import write_run

pytestmark = pytest.mark.slow


def run(here: Place, *arguments: str | Path) -> Ended:
    with here.start(sys.executable, "pipelines/report.py", *map(str, arguments)) as command:
        ended = command.wait()
        assert command.left_behind() == []
    return ended


def test_it_writes_the_page_and_says_where(here: Place, tmp_path: Path) -> None:
    source = captioned_spans(tmp_path, 3)
    build_inline(source, tmp_path / "out", SMALL)
    ended = run(here, tmp_path / "out")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout.strip() == f"report    {tmp_path / 'out' / REPORT}"
    whole = (tmp_path / "out" / REPORT).read_text("utf-8")
    source.unlink()
    ended = run(here, tmp_path / "out")
    assert ended.code == 0
    assert "no such file or folder; clips that are in no shard are shown without pictures" in ended.stderr
    assert (tmp_path / "out" / REPORT).read_text("utf-8") == whole
    assert_conserved(tmp_path / "out")


def test_what_is_no_dataset_or_a_damaged_one_is_named(here: Place, tmp_path: Path) -> None:
    ended = run(here, tmp_path / "nothing")
    assert ended.code == 2 and f"{tmp_path}/nothing holds no dataset: it is not there" in ended.error
    build_inline(captioned_spans(tmp_path, 3), tmp_path / "out", SMALL)
    (tmp_path / "out/ledger/train/000/nsp-000000.parquet").write_bytes(b"no ledger")
    ended = run(here, tmp_path / "out")
    assert ended.code == 1
    assert "nsp-000000.parquet cannot be read" in ended.error
    assert not (tmp_path / "out" / REPORT).exists()


def test_the_page_of_a_run_and_of_an_evaluation_are_written_too(here: Place, tmp_path: Path) -> None:
    for folder, sign in (
        (write_run(tmp_path / "run"), "A training run"),
        (write_evaluation(tmp_path / "eval"), "eval"),
    ):
        ended = run(here, folder)
        assert (ended.code, ended.stderr) == (0, "")
        assert ended.stdout.strip() == f"report    {folder / REPORT}"
        assert sign in (folder / REPORT).read_text("utf-8")


def test_while_a_run_holds_its_lock_its_page_is_written_all_the_same(here: Place, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with hold_lock(Storage.at(folder), "another"):
        assert run(here, folder).code == 0


def test_the_folder_of_a_stage_is_told_from_that_of_a_run(here: Place, tmp_path: Path) -> None:
    ended = run(here, write_run(tmp_path / "run") / "sft")
    assert ended.code == 2 and "is a stage of a training run; name the folder above it" in ended.error


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 3)])
def test_ended_halfway_it_leaves_the_earlier_page_and_no_process(
    here: Place, tmp_path: Path, signum: int, code: int
) -> None:
    build_inline(captioned_spans(tmp_path, 8), tmp_path / "out", SMALL)
    (tmp_path / "out" / REPORT).write_text("the earlier page")
    with here.start(sys.executable, "pipelines/report.py", str(tmp_path / "out")) as command:
        command.until(lambda: command.runs("decode_pool.py"))
        command.send(signum)
        ended = command.wait()
        assert command.left_behind() == []
    assert ended.code == code
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "out" / REPORT).read_text() == "the earlier page"
