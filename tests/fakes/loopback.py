"""Helpers of tests of the judge `claude`: its budget, its sources, and its answers, costs and outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest

from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.ledger import Row
from nextscene.judge.api.answer import Answer
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.spending.answer_segments import read_answers
from nextscene.judge.spending.budget_record import BudgetRecord
from nextscene.judge.spending.prices import Prices
from tests.fakes.claude_api import ClaudeApi, Exchange, Question
from tests.support import ledger, make_video, write_csv

MODEL = ClaudeConfig().model
CLAUDE = BuildConfig(judge="claude", test=0.0, unit_size=4, units_per_shard=2)
CLAUDE_FLAGS = ("--judge", "claude", "--test", "0", "--unit-size", "4", "--units-per-shard", "2")
"""The flags with the same settings as CLAUDE."""

SECONDS = 0.25


def judge_budget(
    budget: str | None = None,
    *,
    in_batches: bool = False,
    model: str = MODEL,
    uncaptioned: Literal["mistake", "caption", "skip"] = "mistake",
) -> JudgeBudget:
    return JudgeBudget(
        Prices.load().for_model(model), None if budget is None else Decimal(budget), in_batches, uncaptioned
    )


def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    """Yield a Claude API on loopback that this process uses, for a fixture. Answers are stored almost at once."""
    monkeypatch.setattr("nextscene.judge.spending.cached_client._STORE_SECONDS", 0.02)
    with ClaudeApi() as api:
        for name, value in api.env.items():
            monkeypatch.setenv(name, value)
        yield api


def spans(folder: Path, captions: Sequence[str]) -> Path:
    """Write a manifest of spans of one video, one for each caption, in order, and return its path."""
    make_video(folder / "film.mp4", len(captions) * SECONDS, "854x480", "16")
    rows: list[dict[str, Any]] = [
        {"video": "film.mp4", "start": f"{i * SECONDS:.2f}", "end": f"{(i + 1) * SECONDS:.2f}", "caption": caption}
        for i, caption in enumerate(captions)
    ]
    return write_csv(folder / "clips.csv", rows)


def stored(out: Path | str) -> dict[str, Answer]:
    """Return all stored answers by their keys."""
    return {answer.key: answer for answer in read_answers(Storage.at(out))}


def account(out: Path | str) -> BudgetRecord:
    record = BudgetRecord.read(Storage.at(out))
    assert record is not None
    return record


def true_cost(exchanges: Sequence[Exchange]) -> Decimal:
    """Return the cost of all answers of the server, delivered or not: $2 and $10 per million tokens."""
    usages = [exchange.usage for exchange in exchanges if exchange.usage]
    tokens = sum(2 * usage["input_tokens"] + 10 * usage["output_tokens"] for usage in usages)
    return Decimal(tokens) / 1_000_000


def asked_of(exchanges: Sequence[Exchange], caption: str) -> list[Exchange]:
    """Return the exchanges whose question contains this caption."""
    return [exchange for exchange in exchanges if caption in Question(exchange.body).text]


def files_of(out: Path) -> dict[str, bytes]:
    """Return path below `out` → content of all files."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def spoil(video: Path) -> None:
    """Overwrite the pictures of a video with zeros, but keep its headers."""
    data = video.read_bytes()
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4 if data.index(b"moov") > begin else len(data)
    video.write_bytes(data[:begin] + bytes(end - begin) + data[end:])


def after_answers(api: ClaudeApi, answers: int, happens: Callable[[], None]) -> None:
    """Call `happens` on the server when it makes its `answers`-th answer from now on."""
    left, answer = answers, api.answer

    def counted(question: Question, tier: str) -> dict[str, Any]:
        nonlocal left
        left -= 1
        if left == 0:
            happens()
        return answer(question, tier)

    api.answer = counted  # type: ignore[method-assign]


def reach_spend_limit(api: ClaudeApi) -> None:
    api.account = "spend_limit"


def outcomes(out: Path) -> list[tuple[str, str]]:
    """Return (outcome, reason) of each clip, in source order."""
    return [(row.outcome, row.reason) for row in ledger(out, CLAUDE)]


def calls(row: Row) -> list[dict[str, Any]]:
    """Return the paid calls of a row, in order."""
    return json.loads(row.calls) if row.calls else []
