"""Answers belong to questions, not to a plan: whatever becomes of the rows around them, nothing is bought twice."""

from __future__ import annotations

import csv
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from nextscene.judge.api.backoff import RetryPolicy
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import CLAUDE, account, calls, judge_budget, loopback, spans, stored
from tests.support import build_inline, ledger, problems, write_csv

pytestmark = pytest.mark.slow

KINDS = ["", "FAIL1", "", "FAIL2", "REFUSE-VERIFY", "TRUNCATE-ONCE", "FAIL3"]
CAPTIONS = [f"thing {i:02d} is seen {KINDS[i % len(KINDS)]}".strip() for i in range(12)]
CAPTIONS += [CAPTIONS[0], CAPTIONS[1]]  # equal questions, of other units

Rows = list[dict[str, str]]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    monkeypatch.setattr("nextscene.curation.run.unit_judge.patience", lambda _: RetryPolicy(quiet_seconds=0.3))
    monkeypatch.setattr("nextscene.judge.api.batch_api._FIRST_POLL_SECONDS", 0.05)
    yield from loopback(monkeypatch)


def in_front(rows: Rows) -> Rows:
    new = [row | {"caption": f"a new row {i}", "end": row["end"] + "1"} for i, row in enumerate(rows[:3])]
    return [*new, *rows]


def shuffled(rows: Rows) -> Rows:
    return random.Random(5).sample(rows, len(rows))


def halved(rows: Rows) -> Rows:
    return rows[1::2]


@pytest.mark.parametrize(
    ("change", "first", "then"),
    [(in_front, False, False), (shuffled, False, False), (shuffled, True, False), (halved, False, True)],
)
def test_no_question_is_bought_twice_by_another_plan_over_the_same_answers(
    change: Callable[[Rows], Rows], first: bool, then: bool, tmp_path: Path, api: ClaudeApi
) -> None:
    source = spans(tmp_path / "source", CAPTIONS)
    with source.open() as file:
        rows = list(csv.DictReader(file))
    other = write_csv(source.with_name("other.csv"), change(rows))
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget(in_batches=first))
    shutil.copytree(tmp_path / "out" / "calls", tmp_path / "again" / "calls")
    before = {row.clip_id: (row.outcome, row.scene_description) for row in ledger(tmp_path / "out", CLAUDE)}
    build_inline(other, tmp_path / "again", CLAUDE, judge_budget=judge_budget(in_batches=then))

    after = {row.clip_id: row for row in ledger(tmp_path / "again", CLAUDE)}
    assert len(after) == len(change(rows))
    assert {
        clip: (row.outcome, row.scene_description) for clip, row in after.items() if clip in before
    }.items() <= before.items()
    bought = Counter(api.paid)
    assert set(bought.values()) == {1}
    answers = stored(tmp_path / "again")
    assert account(tmp_path / "again").spent == sum(answer.usd for answer in answers.values())
    # What was bought for a clip stands in its row; of clips that are no more, in none.
    theirs = sum((answer.usd for answer in answers.values() if answer.clip_id in after), Decimal(0))
    assert sum(Decimal(call["usd"]) for row in after.values() for call in calls(row)) == theirs


def test_the_answers_of_two_datasets_that_bought_the_same_may_be_put_together(tmp_path: Path, api: ClaudeApi) -> None:
    source, both = spans(tmp_path / "source", CAPTIONS[:3]), tmp_path / "both"
    for name in ("one", "other"):
        build_inline(source, tmp_path / name, CLAUDE, judge_budget=judge_budget())
        shutil.copytree(tmp_path / name / "calls", both / "calls", dirs_exist_ok=True)
    paid = len(api.paid)
    build_inline(source, both, CLAUDE, judge_budget=judge_budget())
    assert len(api.paid) == paid
    assert account(both).spent == account(tmp_path / "one").spent + account(tmp_path / "other").spent
    assert not problems(both, CLAUDE)
