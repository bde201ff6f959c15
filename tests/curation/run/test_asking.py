"""The judge `claude` in a run: what each answer does to its clip, what the ledger says of it, and what it costs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nextscene.common.storage import Storage
from nextscene.curation.config import RunLimits
from nextscene.curation.ledger import Row
from nextscene.curation.summary import Spending
from nextscene.prompts import load
from nextscene.shards.format.receipt import sealed_shards
from nextscene.shards.format.sample import Sample
from nextscene.shards.loading.reader import ShardReader
from tests.fakes.claude_api import Answer as Said
from tests.fakes.claude_api import AnswerRules, ClaudeApi, Question
from tests.fakes.loopback import (
    CLAUDE,
    MODEL,
    account,
    asked_of,
    calls,
    files_of,
    judge_budget,
    outcomes,
    spans,
    spoil,
    stored,
    true_cost,
)
from tests.support import (
    SMALL,
    assert_conserved,
    assert_same_dataset,
    build_inline,
    captioned_spans,
    ledger,
    make_video,
    run_ffmpeg,
    write_csv,
)

pytestmark = pytest.mark.slow

EMPTY_ASKING: dict[str, Any] = {
    "scene_description": "",
    "verdict": "",
    "verdict_reason": "",
    "rounds": 0,
    "judge_model": "",
    "captioned_by": "",
    "prompt_sha256": "",
    "turned_down": "",
    "sample": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "usd": 0.0,
    "calls": "",
}
SAME_MOMENT = "The caption tells of the same moment."
LATER_MOMENT = "The caption shows a later moment."


@dataclass(frozen=True)
class End:
    """How a clip ends, by the words of claude_api/answer_rules.py; `tasks` are the answers that it takes, in order."""

    outcome: str
    reason: str = ""
    detail: str = ""
    tasks: str = "describe verify"
    failed: int = 0
    verdict: str = ""


ROUND = "describe verify"
ENDS = {
    "": End("kept", verdict="Pass"),
    "FAIL1": End("kept", tasks=f"{ROUND} {ROUND}", failed=1, verdict="Pass"),
    "FAIL2": End("kept", tasks=f"{ROUND} {ROUND} {ROUND}", failed=2, verdict="Pass"),
    "FAIL3": End(
        "dropped", "no_pass", f"3 of 3 rounds failed; last: {SAME_MOMENT}", f"{ROUND} {ROUND} {ROUND}", 3, "Fail"
    ),
    "REFUSE-DESCRIBE": End(
        "refused",
        "frontier_llm",
        "describe: This request could assist the development of competing models.",
        "describe",
    ),
    "REFUSE-VERIFY": End(
        "refused", "frontier_llm", "verify: This request could assist the development of competing models."
    ),
    "TRUNCATE-ONCE": End("kept", tasks="describe describe verify", verdict="Pass"),
    "TRUNCATE-ALWAYS": End("failed", "truncated", "describe: max_tokens at 2048 tokens", "describe describe"),
    "SHOUT": End("kept", verdict="Pass"),
    "SHOUT FAIL3": End(
        "dropped", "no_pass", f"3 of 3 rounds failed; last: {SAME_MOMENT}", f"{ROUND} {ROUND} {ROUND}", 3, "Fail"
    ),
    "FENCED": End("kept", verdict="Pass"),
    "GARBLED": End(
        "failed",
        "unreadable_answer",
        "verify: 'Let me begin by comparing the two texts. The first one'",
        "describe verify verify",
    ),
    "EMPTY": End("failed", "unreadable_answer", "describe: ''", "describe describe"),
    "BAD-REQUEST": End(
        "failed", "judge_error", "describe: HTTP 400: messages: this caption makes the request invalid", ""
    ),
    "THINKS": End("kept", verdict="Pass"),
    "FAIL1 REFUSE-VERIFY": End(
        "refused", "frontier_llm", "verify: This request could assist the development of competing models."
    ),
}


@dataclass
class Asked:
    """A finished run over ENDS, and the server that answered it."""

    source: Path
    out: Path
    api: ClaudeApi
    request_ids: list[str] = field(default_factory=list)

    def row(self, marker: str) -> Row:
        return ledger(self.out, CLAUDE)[list(ENDS).index(marker)]

    def caption(self, marker: str) -> str:
        return captions()[list(ENDS).index(marker)]


def captions() -> list[str]:
    """One for each marker; none is part of another."""
    return [f"clip {i:02d} shows a thing {marker}".strip() for i, marker in enumerate(ENDS)]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("asked")
    source = spans(folder, captions())
    with ClaudeApi(rules=AnswerRules(thinking_tokens=7)) as api, pytest.MonkeyPatch.context() as patch:
        for name, value in api.env.items():
            patch.setenv(name, value)
        run = Asked(source, folder / "out", api)
        new_id = api.new_id

        def noted(kind: str) -> str:
            made = new_id(kind)
            run.request_ids.append(made)
            return made

        patch.setattr(api, "new_id", noted)
        build_inline(source, run.out, CLAUDE, judge_budget=judge_budget())
        yield run


def samples(out: Path) -> dict[str, Sample]:
    place = Storage.at(out)
    readers = [ShardReader(place, shard) for shard in sealed_shards(place).values()]
    return {key: reader.sample(key) for reader in readers for key in reader.receipt.clip_ids}


# ---- what an answer does ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("marker", ENDS)
def test_each_way_of_answering_leads_to_its_outcome_and_its_row(asked: Asked, marker: str) -> None:
    end, row = ENDS[marker], asked.row(marker)
    assert (row.outcome, row.reason, row.detail) == (end.outcome, end.reason, end.detail)
    assert [call["task"] for call in calls(row)] == end.tasks.split()
    assert row.verdict == end.verdict
    decided = end.outcome in ("kept", "dropped")
    rounds = end.failed + (end.outcome == "kept")
    assert row.rounds == rounds
    assert row.judge_model == (MODEL if decided else "")
    assert (row.judge, row.prompt_sha256) == ("claude", load("preceding_description").sha256)
    assert (row.caption, row.captioned_by, row.sample) == (asked.caption(marker), "", 0)


@pytest.mark.parametrize("marker", ENDS)
def test_every_scene_that_was_turned_down_stands_in_the_row_with_its_reason(asked: Asked, marker: str) -> None:
    """The scenes, in order, as the server wrote them."""
    end, row = ENDS[marker], asked.row(marker)
    made = [_shown(asked, exchange.body) for exchange in _answered(asked, marker) if _task(exchange.body) == "describe"]
    turned_down = json.loads(row.turned_down) if row.turned_down else []
    assert [attempt["reason"] for attempt in turned_down] == [SAME_MOMENT] * end.failed
    assert [attempt["scene"] for attempt in turned_down] == made[: end.failed]
    if end.outcome == "kept":
        assert (row.scene_description, row.verdict_reason) == (made[-1], LATER_MOMENT)
    elif end.outcome == "dropped":
        assert (row.scene_description, row.verdict_reason) == (made[-1], SAME_MOMENT)
    else:
        assert (row.scene_description, row.verdict_reason) == ("", "")


def test_a_new_attempt_is_told_all_that_were_turned_down(asked: Asked) -> None:
    row = asked.row("FAIL2")
    describes = [e.body for e in _answered(asked, "FAIL2") if _task(e.body) == "describe"]
    scenes = [attempt["scene"] for attempt in json.loads(row.turned_down)]
    for failed, body in enumerate(describes):
        said = Question(body).text
        assert [scene in said for scene in scenes] == [i < failed for i in range(2)]


@pytest.mark.parametrize("marker", ENDS)
def test_every_call_of_a_row_names_model_prompt_request_tokens_and_price(asked: Asked, marker: str) -> None:
    row = asked.row(marker)
    exchanges = _answered(asked, marker)
    assert len(calls(row)) == len(exchanges)
    prompts = {"describe": "preceding_description", "verify": "verification"}
    for call, exchange in zip(calls(row), exchanges, strict=True):
        usage = exchange.usage
        assert usage
        assert (call["model_asked"], call["model_served"]) == (exchange.body["model"], MODEL)
        assert call["prompt"] == prompts[_task(exchange.body)] == prompts[call["task"]]
        assert call["prompt_sha256"] == load(call["prompt"]).sha256
        assert call["request_id"].startswith("req_") and call["request_id"] in asked.request_ids
        assert call["message_id"].startswith("msg_") and call["message_id"] in asked.request_ids
        tokens = usage["input_tokens"], usage["output_tokens"]
        assert (call["input_tokens"], call["output_tokens"], call["thinking_tokens"]) == (*tokens, 7)
        assert Decimal(call["usd"]) == (2 * tokens[0] + 10 * tokens[1]) / Decimal(1_000_000)
        assert (call["tries"], call["shared"], call["batch_id"]) == (1, False, "")
    assert row.input_tokens == sum(call["input_tokens"] for call in calls(row))
    assert row.output_tokens == sum(call["output_tokens"] for call in calls(row))
    assert row.usd == pytest.approx(float(sum(Decimal(call["usd"]) for call in calls(row))), abs=1e-12)


def test_all_rows_sum_to_the_account_and_the_account_to_what_the_server_charged(asked: Asked) -> None:
    every = [call for row in ledger(asked.out, CLAUDE) for call in calls(row)]
    ids = [call["request_id"] for call in every]
    assert len(set(ids)) == len(ids) == sum(exchange.status == 200 for exchange in asked.api.exchanges)
    statement = account(asked.out)
    assert sum(Decimal(call["usd"]) for call in every) == statement.spent == true_cost(asked.api.exchanges)
    assert (statement.answers, statement.lost, statement.allowance) == (len(every), Decimal(0), statement.spent)
    assert {answer.request_id for answer in stored(asked.out).values()} == set(ids)


def test_samples_are_of_kept_clips_and_have_the_scene_in_json_and_text(asked: Asked) -> None:
    rows = {row.clip_id: row for row in ledger(asked.out, CLAUDE) if row.kept}
    made = samples(asked.out)
    assert made.keys() == rows.keys() and len(rows) == sum(end.outcome == "kept" for end in ENDS.values())
    for key, sample in made.items():
        row, record = rows[key], sample.record
        assert sample.text.decode() == record.scene_description == row.scene_description != ""
        assert (record.caption, record.verdict, record.rounds) == (row.caption, "Pass", row.rounds)
        assert (record.judge, record.judge_model, record.prompt_sha256) == ("claude", MODEL, row.prompt_sha256)


def test_it_is_conserved_and_told_in_the_summary(asked: Asked) -> None:
    assert_conserved(asked.out, CLAUDE)
    summary = json.loads((asked.out / "summary.json").read_text())
    assert summary["judge"] == "claude" and "2512.13015" in summary["method"]
    statement = account(asked.out)
    spent = Spending(statement.answers, float(statement.spent), 0.0, 0)
    assert Spending(**summary["spending"]) == spent


def test_the_same_run_again_asks_nothing_and_writes_nothing(asked: Asked, api: ClaudeApi) -> None:
    before = files_of(asked.out)
    build_inline(asked.source, asked.out, CLAUDE, judge_budget=judge_budget())
    assert files_of(asked.out) == before
    assert api.exchanges == []


def test_the_same_run_elsewhere_makes_the_same_dataset(asked: Asked, api: ClaudeApi, tmp_path: Path) -> None:
    """Other ids of requests, other tokens of thought, one call at a time: none of it is content."""
    build_inline(
        asked.source, tmp_path / "out", replace(CLAUDE, limits=RunLimits(calls_at_once=1)), judge_budget=judge_budget()
    )
    assert_same_dataset(asked.out, tmp_path / "out", CLAUDE)
    assert api.max_in_flight == 1


def test_in_batches_the_same_dataset_costs_half(asked: Asked, api: ClaudeApi, tmp_path: Path) -> None:
    api.rules = asked.api.rules
    config = replace(CLAUDE, unit_size=len(ENDS))
    source = asked.source
    build_inline(source, tmp_path / "one by one", config, judge_budget=judge_budget())
    spent = account(tmp_path / "one by one").spent
    asked_before = len(api.exchanges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nextscene.curation.run.unit_judge.patience", _hasty)
        patch.setattr("nextscene.judge.api.batch_api._FIRST_POLL_SECONDS", 0.05)
        build_inline(source, tmp_path / "out", config, judge_budget=judge_budget(in_batches=True))
    assert len(api.exchanges) == asked_before and api.batches
    one, other = ledger(tmp_path / "one by one", config), ledger(tmp_path / "out", config)
    columns = "clip_id outcome reason detail caption scene_description turned_down rounds verdict mp4_sha256".split()
    columns.append("judge_model")
    assert [[getattr(row, c) for c in columns] for row in one] == [[getattr(row, c) for c in columns] for row in other]
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in ("one by one", "out")]
    assert manifests[0] == manifests[1]
    assert_conserved(tmp_path / "out", config)
    statement = account(tmp_path / "out")
    assert (statement.spent, statement.lost) == (spent / 2, 0)
    ids = {batch.id for batch in api.batches}
    every = [call for row in ledger(tmp_path / "out", config) for call in calls(row)]
    assert {call["batch_id"] for call in every} <= ids
    assert sum(Decimal(call["usd"]) for call in every) == statement.spent


def test_a_question_that_alone_keeps_failing_ends_with_its_last_error(
    api: ClaudeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patience of the real run is shortened."""
    monkeypatch.setattr("nextscene.judge.api.client.backoff", lambda tries: 0.02)
    monkeypatch.setattr("nextscene.judge.api.client._MAX_FAILURES", 3)
    source = spans(tmp_path, ["bad thing ALWAYS-500", *(f"thing {i} FAIL3" for i in range(3))])
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    assert outcomes(tmp_path / "out") == [("failed", "judge_error"), *[("dropped", "no_pass")] * 3]
    row = ledger(tmp_path / "out", CLAUDE)[0]
    assert re.fullmatch(r"describe: \d+ times .+; last: HTTP 500: Internal server error", row.detail)
    assert (row.calls, row.usd) == ("", 0.0)
    assert account(tmp_path / "out").spent == true_cost(api.exchanges)
    assert_conserved(tmp_path / "out", CLAUDE)


def test_equal_questions_of_two_clips_are_paid_once_and_the_copy_says_so(api: ClaudeApi, tmp_path: Path) -> None:
    """In one unit, and in another one."""
    source = spans(tmp_path, ["the same", "the same", "another", "a third", "the same"])
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    assert len(api.exchanges) == 3 * 2
    rows = ledger(tmp_path / "out", CLAUDE)
    assert [row.outcome for row in rows] == ["kept"] * 5
    same = [rows[0], rows[1], rows[4]]
    assert len({row.scene_description for row in same}) == 1
    paid = {call["request_id"] for row in rows for call in calls(row) if not call["shared"]}
    assert len(paid) == 6
    assert sum(Decimal(call["usd"]) for call in calls(rows[4])) == 0 and all(c["shared"] for c in calls(rows[4]))
    unique = {call["request_id"]: Decimal(call["usd"]) for row in rows for call in calls(row) if not call["shared"]}
    assert sum(unique.values()) == account(tmp_path / "out").spent == true_cost(api.exchanges)
    assert_conserved(tmp_path / "out", CLAUDE)


def test_the_rows_of_a_unit_do_not_count_an_answer_twice(api: ClaudeApi, tmp_path: Path) -> None:
    source = spans(tmp_path, ["the same", "the same"])
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    dollars = sum(row.usd for row in ledger(tmp_path / "out", CLAUDE))
    assert dollars == pytest.approx(float(account(tmp_path / "out").spent), abs=1e-12)


@pytest.mark.parametrize("judge", ["film", "none"])
def test_other_judges_leave_the_columns_of_the_asking_empty(api: ClaudeApi, tmp_path: Path, judge: str) -> None:
    config = replace(SMALL, judge=judge)  # type: ignore[arg-type]
    build_inline(captioned_spans(tmp_path, 3), tmp_path / "out", config)
    film = {"scene_description", "verdict", "verdict_reason", "rounds", "judge_model"} if judge == "film" else set()
    for row in ledger(tmp_path / "out", config):
        found = {name: getattr(row, name) for name in EMPTY_ASKING if name not in film}
        assert found == {name: value for name, value in EMPTY_ASKING.items() if name not in film}
    assert api.exchanges == []
    assert not (tmp_path / "out" / "calls").exists()
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["spending"] is None


# ---- clips without a caption -----------------------------------------------------------------------------------


def test_clips_without_a_caption_are_captioned_from_their_frames(api: ClaudeApi, tmp_path: Path) -> None:
    """A video, a short one, an image, one that cannot be decoded, and one that has a caption."""
    make_video(tmp_path / "long.mp4", 1.0)
    make_video(tmp_path / "short.mp4", 0.25)
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=900x600", "-frames:v", "1", str(tmp_path / "still.png"))
    spoil(make_video(tmp_path / "spoiled.mp4", 0.5))
    rows = [{"video": name, "caption": ""} for name in ("long.mp4", "short.mp4", "still.png", "spoiled.mp4")]
    source = write_csv(tmp_path / "clips.csv", [*rows, {"video": "long.mp4", "id": "x", "caption": "a given caption"}])
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget(uncaptioned="caption"))
    long, short, still, spoiled, given = ledger(tmp_path / "out", CLAUDE)
    for row, frames in ((long, 8), (short, 4), (still, 1)):
        assert row.outcome == "kept"
        assert row.captioned_by == MODEL
        assert row.caption.startswith(f"A clip with {frames} frames, ")
        caption, describe, verify = calls(row)
        assert [call["task"] for call in (caption, describe, verify)] == ["caption", "describe", "verify"]
        assert (caption["prompt"], caption["prompt_sha256"]) == ("caption", load("caption").sha256)
        assert len(asked_of(api.exchanges, row.caption)) == 2
        sample = samples(tmp_path / "out")[row.clip_id]
        assert (sample.record.caption, sample.text.decode()) == (row.caption, row.scene_description)
    assert (spoiled.outcome, spoiled.caption, spoiled.calls) == ("failed", "", "")
    assert spoiled.detail
    assert (given.outcome, given.caption, given.captioned_by) == ("kept", "a given caption", "")
    assert len(api.exchanges) == 3 * 3 + 2
    assert account(tmp_path / "out").spent == true_cost(api.exchanges)
    assert_conserved(tmp_path / "out", CLAUDE)
    build_inline(source, tmp_path / "again", CLAUDE, judge_budget=judge_budget(uncaptioned="caption"))
    assert_same_dataset(tmp_path / "out", tmp_path / "again", CLAUDE)
    assert len(set(api.paid)) == len(api.exchanges) / 2


def test_a_clip_whose_caption_is_refused_is_refused(api: ClaudeApi, tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Blind(AnswerRules):
        def caption(self, question: Question) -> Said:
            return Said(None, "refusal")

    api.rules = Blind()
    make_video(tmp_path / "in" / "a.mp4", 0.25)
    build_inline(tmp_path / "in", tmp_path / "out", CLAUDE, judge_budget=judge_budget(uncaptioned="caption"))
    (row,) = ledger(tmp_path / "out", CLAUDE)
    assert (row.outcome, row.reason, row.caption, row.captioned_by) == ("refused", "frontier_llm", "", MODEL)
    assert_conserved(tmp_path / "out", CLAUDE)


# ---- tools -----------------------------------------------------------------------------------------------------


def _answered(asked: Asked, marker: str) -> list[Any]:
    """The exchanges that were answered about a marker's clip, in order."""
    found = asked_of(asked.api.exchanges, asked.caption(marker))
    # The caption without a marker is the beginning of no other one.
    return [exchange for exchange in found if exchange.status == 200]


def _task(body: dict[str, Any]) -> str:
    return "describe" if "Predict the most likely prior event" in Question(body).text else "verify"


def _shown(asked: Asked, body: dict[str, Any]) -> str:
    return asked.api.rules.answer(Question(body)).text or ""


def _hasty(limits: RunLimits) -> Any:
    from nextscene.judge.api.backoff import RetryPolicy

    return RetryPolicy(limits.calls_at_once, limits.call_seconds, limits.outage_seconds, 0.3)
