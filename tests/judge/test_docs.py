"""docs/judge.md: its prices are those of the table, its flags those of the command, and its Python runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.judge.config import ClaudeConfig
from nextscene.judge.spending.estimate import CASES, Estimator, PendingClip
from nextscene.judge.spending.prices import Prices
from tests.fakes.claude_api import ClaudeApi
from tests.support import REPOSITORY

PAGE = (REPOSITORY / "docs" / "judge.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([\d,]+)( without captions)? \| (claude-[\w-]+) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)


def test_the_page_names_the_day_of_the_prices() -> None:
    assert f"prices of {Prices.load().dated}" in PAGE


@pytest.mark.parametrize(("clips", "uncaptioned", "model", "one_by_one", "in_batches"), ROWS)
def test_each_row_of_costs_is_what_the_estimate_says(
    clips: str, uncaptioned: str, model: str, one_by_one: str, in_batches: str
) -> None:
    price = Prices.load().for_model(model)
    settings = ClaudeConfig(model=model)
    ahead = PendingClip("" if uncaptioned else "x" * 120, settings.frames)
    for shown, batch in ((one_by_one, False), (in_batches, True)):
        figures = re.sub(r"[*,]", "", shown).split(" – ")
        for figure, assumed in zip(figures, CASES.values(), strict=True):
            bill = Estimator(settings, price, replace(assumed, screened=1.0)).bill(ahead) * int(clips.replace(",", ""))
            assert f"{bill.usd(price, in_batch=batch):.2f}" == figure


def test_there_are_rows_for_a_thousand_and_for_a_million_clips() -> None:
    assert {row[0] for row in ROWS} == {"1,000", "1,000,000"}


def test_the_python_asks_once_and_finds_the_answers_when_run_again(
    api: ClaudeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"^```python$(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    names = {"__name__": "program"}
    exec(program, names)  # the page's own code
    first = capsys.readouterr().out
    assert ": Pass, " in first
    asked = len(api.exchanges)
    exec(program, names)
    assert capsys.readouterr().out == first
    assert len(api.exchanges) == asked == 2
