"""The one display of progress: lines in a log, a bar on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nextscene.pipelines.cli import progress


def shown(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> str:
    page = io.StringIO()
    monkeypatch.setattr(progress, "err", Console(file=page, force_terminal=is_terminal, width=200, soft_wrap=True))
    monkeypatch.setattr(progress, "_LINE_EVERY_SECONDS", 0.0)
    watch = progress.ProgressLine("judging", "videos")
    watch.begin(8, 2)
    watch.advance(3)
    watch.tick()
    watch.end()
    watch.end()
    return page.getvalue()


def test_a_log_gets_a_line_with_counts_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, False).startswith("judging: 5 of 8 videos, ")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "5/8" in shown(monkeypatch, True)


def test_lines_come_at_most_every_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    page = io.StringIO()
    monkeypatch.setattr(progress, "err", Console(file=page, force_terminal=False))
    watch = progress.ProgressLine("judging", "videos")
    watch.begin(8, 2)
    for _ in range(3):
        watch.tick()
    assert page.getvalue() == ""
