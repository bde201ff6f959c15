"""`python pipelines/report.py OUT`, as a user runs it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from nextscene.shards.format.layout import REPORT
from tests.command import Ended, Place
from tests.support import SMALL, assert_conserved, build_inline, captioned_spans

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
