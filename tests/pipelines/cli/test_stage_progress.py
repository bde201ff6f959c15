"""What a build tells of its stages: a line in a log, a bar that moves on a terminal."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest
from rich.console import Console
from rich.progress import Progress

from nextscene.curation.progress import Stages
from nextscene.judge.call_progress import CallProgress
from nextscene.pipelines.cli import progress
from nextscene.pipelines.cli.stage_progress import BuildProgress

PLANNED = Stages(30, 30, 30, 2, 30)
ASKING = CallProgress(answers=1234, spent=Decimal("1.5"), lost=Decimal(0), under_way=7, in_batches=0, trouble="")


def told(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, *ticks: Stages) -> str:
    page = io.StringIO()
    monkeypatch.setattr(progress, "err", Console(file=page, force_terminal=is_terminal, width=200, soft_wrap=True))
    monkeypatch.setattr(progress, "_LINE_EVERY_SECONDS", 0.0)
    watch = BuildProgress()
    watch.begin(PLANNED, Stages())
    for done in ticks:
        watch.tick(done, ASKING)
    watch.end()
    return page.getvalue()


def test_a_line_tells_every_stage_and_the_dollars(monkeypatch: pytest.MonkeyPatch) -> None:
    line = told(monkeypatch, False, Stages(20, 11, 5, 1, 4))
    assert line.startswith("screened 20, asked 11, cut 5, decided 4 of 30 clips, sealed 1 of 2 shards; ")
    assert line.endswith("clips a second; $1.50 for 1,234 answers, 7 in flight\n")


def test_the_bar_moves_before_any_clip_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    at = []
    monkeypatch.setattr(Progress, "update", lambda *_, completed, **__: at.append(completed))
    told(monkeypatch, True, Stages(1), Stages(30), Stages(30, 4), Stages(30, 30, 1), PLANNED)
    assert at == sorted(set(at)) and at[-1] == 90


def test_a_retry_has_a_bar_of_its_own_which_counts_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    at: list[str] = []
    ended: list[int] = []
    monkeypatch.setattr(progress, "err", Console(file=io.StringIO(), force_terminal=True, width=200))
    monkeypatch.setattr(Progress, "update", lambda *_, completed, description: at.append(description))
    monkeypatch.setattr(Progress, "stop", lambda _: ended.append(len(at)))
    watch = BuildProgress()
    watch.begin(PLANNED, Stages(29, 29, 29, 1, 29))
    watch.tick(PLANNED, None)
    watch.begin(PLANNED, Stages(20, 20, 20, 1, 20))
    watch.tick(Stages(20, 20, 20, 1, 20), None)
    watch.end()
    assert ended == [1, 2]
    assert at[1].startswith(
        "screened 20, asked 20, cut 20, decided 20 of 30 clips, sealed 1 of 2 shards; 0.0 clips a second"
    )
