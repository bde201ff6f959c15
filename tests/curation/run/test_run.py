"""A whole run without Ray: what it makes, and that doing it again does nothing."""

from __future__ import annotations

from pathlib import Path

from nextscene.common.storage import Storage
from tests.support import SMALL, assert_conserved, build_inline, captioned_spans, ledger


def test_every_span_of_a_captioned_film_becomes_a_sample(tmp_path: Path, scratch: Path) -> None:
    summary = build_inline(captioned_spans(tmp_path, 7), tmp_path / "out", SMALL)
    assert summary.outcomes == (("kept", "", 7),)
    assert (summary.planned, summary.samples, summary.tars, summary.complete) == (7, 7, 2, True)
    assert [row.frames for row in ledger(tmp_path / "out")] == [4] * 7
    assert_conserved(tmp_path / "out")
    assert list(scratch.iterdir()) == []


def test_a_second_run_writes_nothing(tmp_path: Path) -> None:
    source = captioned_spans(tmp_path, 3)
    build_inline(source, tmp_path / "out", SMALL)
    out = Storage.at(tmp_path / "out")
    before = {entry.path: entry.mtime_ns for entry in out.files(recursive=True)}
    build_inline(source, tmp_path / "out", SMALL)
    after = {entry.path: entry.mtime_ns for entry in out.files(recursive=True)}
    assert after == before
