"""The judge `claude` in a run: what each answer does to its clip, what the ledger says of it, and what it costs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from curation.config import Limits
from curation.errors import RunStopped, UsageMistake
from curation.ledger import Row
from curation.lock import Holder, held
from curation.run import Order, build
from curation.scenes import Scene
from curation.sealing import seal_shard
from curation.setup import prepare
from curation.sources import Source
from curation.status import status
from curation.summary import Spending
from curation.unit import Job, cut_unit, screen_unit
from curation.work import ShardWork
from judge.account import ACCOUNT, Statement
from judge.open_batch import OpenBatch
from judge.settings import Claude
from pipelines.console import Watch
from prompts import load
from shards.layout import LOCK
from shards.read import ShardReader
from shards.receipt import Manifest, sealed_shards
from shards.sample import Sample
from shards.storage import Storage
from tests.asking import CLAUDE, MODEL, account, asked_of, spans, stored, terms, true_cost
from tests.claude_api import Answer as Said
from tests.claude_api import ClaudeApi, Mind, Question
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
    "scene_description": "", "verdict": "", "verdict_reason": "", "rounds": 0, "judge_model": "", "captioned_by": "",
    "prompt_sha256": "", "turned_down": "", "sample": 0, "input_tokens": 0, "output_tokens": 0, "usd": 0.0, "calls": "",
}  # fmt: skip
SAME_MOMENT = "The caption tells of the same moment."
LATER_MOMENT = "The caption shows a later moment."


@dataclass(frozen=True)
class End:
    """How a clip ends, by the words of tests/claude_api/mind.py; `tasks` are the answers that it takes, in order."""

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
        "refused", "frontier_llm", "describe: This request could assist the development of competing models.",
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
        "failed", "unreadable_answer", "verify: 'Let me begin by comparing the two texts. The first one'",
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
}  # fmt: skip


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    monkeypatch.setattr("judge.store._LINGER_SECONDS", 0.02)
    with ClaudeApi() as api:
        for name, value in api.env.items():
            monkeypatch.setenv(name, value)
        yield api


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
    with ClaudeApi(mind=Mind(thinking_tokens=7)) as api, pytest.MonkeyPatch.context() as patch:
        for name, value in api.env.items():
            patch.setenv(name, value)
        run = Asked(source, folder / "out", api)
        new_id = api.new_id

        def noted(kind: str) -> str:
            made = new_id(kind)
            run.request_ids.append(made)
            return made

        patch.setattr(api, "new_id", noted)
        build_inline(source, run.out, CLAUDE, terms=terms())
        yield run


def samples(out: Path) -> dict[str, Sample]:
    place = Storage.at(out)
    readers = [ShardReader(place, shard) for shard in sealed_shards(place).values()]
    return {key: reader.sample(key) for reader in readers for key in reader.receipt.clip_ids}


def calls(row: Row) -> list[dict[str, Any]]:
    return json.loads(row.calls) if row.calls else []


def outcomes(out: Path) -> list[tuple[str, str]]:
    return [(row.outcome, row.reason) for row in ledger(out, CLAUDE)]


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
        said = Question(body).said
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


def test_the_scene_stands_in_json_and_text_of_each_sample_and_only_what_was_kept_has_one(asked: Asked) -> None:
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


def test_the_same_run_again_asks_nothing_and_writes_nothing_but_the_account_of_the_run(
    asked: Asked, api: ClaudeApi
) -> None:
    before = _files(asked.out)
    build_inline(asked.source, asked.out, CLAUDE, terms=terms())
    changed = {path for path, data in _files(asked.out).items() if before.get(path) != data}
    assert changed <= {"summary.json"}
    assert api.exchanges == []


def test_the_same_run_elsewhere_makes_the_same_dataset(asked: Asked, api: ClaudeApi, tmp_path: Path) -> None:
    """Other ids of requests, other tokens of thought, one call at a time: none of it is content."""
    build_inline(asked.source, tmp_path / "out", replace(CLAUDE, limits=Limits(calls_at_once=1)), terms=terms())
    assert_same_dataset(asked.out, tmp_path / "out", CLAUDE)
    assert api.most_in_flight == 1


def test_in_batches_the_same_dataset_costs_half(asked: Asked, api: ClaudeApi, tmp_path: Path) -> None:
    api.mind = asked.api.mind
    config = replace(CLAUDE, unit_size=len(ENDS))
    source = asked.source
    build_inline(source, tmp_path / "one by one", config, terms=terms())
    spent = account(tmp_path / "one by one").spent
    asked_before = len(api.exchanges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curation.judging.patience", _hasty)
        patch.setattr("judge.batch_api._FIRST_POLL_SECONDS", 0.05)
        build_inline(source, tmp_path / "out", config, terms=terms(in_batches=True))
    assert len(api.exchanges) == asked_before and api.batches
    one, other = ledger(tmp_path / "one by one", config), ledger(tmp_path / "out", config)
    columns = "clip_id outcome reason detail caption scene_description turned_down rounds verdict mp4_sha256".split()
    columns.append("judge_model")
    assert [[getattr(row, c) for c in columns] for row in one] == [[getattr(row, c) for c in columns] for row in other]
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in ("one by one", "out")]
    assert manifests[0] == manifests[1]
    assert_conserved(tmp_path / "out", config)
    statement = account(tmp_path / "out")
    assert (statement.spent, statement.collected) == (spent / 2, ())
    ids = {batch.id for batch in api.batches}
    every = [call for row in ledger(tmp_path / "out", config) for call in calls(row)]
    assert {call["batch_id"] for call in every} <= ids
    assert sum(Decimal(call["usd"]) for call in every) == statement.spent


def test_what_fails_with_the_server_time_after_time_while_others_are_answered_ends_with_the_last_error(
    api: ClaudeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patience of the real run is shortened."""
    monkeypatch.setattr("judge.client.backoff", lambda tries: 0.02)
    monkeypatch.setattr("judge.client._STRIKES", 3)
    source = spans(tmp_path, ["bad thing ALWAYS-500", *(f"thing {i} FAIL3" for i in range(3))])
    build_inline(source, tmp_path / "out", CLAUDE, terms=terms())
    assert outcomes(tmp_path / "out") == [("failed", "judge_error"), *[("dropped", "no_pass")] * 3]
    row = ledger(tmp_path / "out", CLAUDE)[0]
    assert re.fullmatch(r"describe: \d+ times .+; last: HTTP 500: Internal server error", row.detail)
    assert (row.calls, row.usd) == ("", 0.0)
    assert account(tmp_path / "out").spent == true_cost(api.exchanges)
    assert_conserved(tmp_path / "out", CLAUDE)


def test_equal_questions_of_two_clips_are_paid_once_and_the_copy_says_so(api: ClaudeApi, tmp_path: Path) -> None:
    """In one unit, and in another one."""
    source = spans(tmp_path, ["the same", "the same", "another", "a third", "the same"])
    build_inline(source, tmp_path / "out", CLAUDE, terms=terms())
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
    build_inline(source, tmp_path / "out", CLAUDE, terms=terms())
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


# ---- what stops the run ----------------------------------------------------------------------------------------


def test_when_the_account_stops_the_run_what_was_answered_is_not_asked_again(api: ClaudeApi, tmp_path: Path) -> None:
    source = spans(tmp_path, [f"thing {i} of many FAIL1" for i in range(6)])
    _then(api, answers=7, happens=lambda: _fall(api))
    with pytest.raises(RunStopped, match="spend limit"):
        build_inline(source, tmp_path / "out", CLAUDE, terms=terms())
    before = {answer.request_id for answer in stored(tmp_path / "out").values()}
    assert len(before) >= 7 and account(tmp_path / "out").spent == true_cost(api.exchanges)
    api.account = "good"
    build_inline(source, tmp_path / "out", CLAUDE, terms=terms())
    assert sorted(api.paid) == sorted(set(api.paid)) and len(api.paid) == 6 * 4
    assert before <= {answer.request_id for answer in stored(tmp_path / "out").values()}
    assert account(tmp_path / "out").spent == true_cost(api.exchanges)
    assert outcomes(tmp_path / "out") == [("kept", "")] * 6
    assert_conserved(tmp_path / "out", CLAUDE)


STOPS: dict[str, tuple[type[Exception], str]] = {
    "user_limit": (RunStopped, r"spend limit .*raise it"),
    "no_credit": (RunStopped, r"credit"),
    "forbidden": (RunStopped, r"may not ask .*console"),
    "down": (RunStopped, r"gave no answer for"),
    "overloaded": (RunStopped, r"gave no answer for"),
    "deaf": (RunStopped, r"gave no answer for"),
    "unknown model": (UsageMistake, r"does not know the model.*choose another --model"),
}


@pytest.mark.parametrize("trouble", STOPS)
def test_what_is_wrong_with_the_account_or_the_server_stops_the_run_with_the_remedy(
    api: ClaudeApi, tmp_path: Path, trouble: str
) -> None:
    kind, words = STOPS[trouble]
    if trouble == "unknown model":
        api.models = frozenset()
    else:
        api.account = trouble
    config = replace(CLAUDE, limits=Limits(outage_seconds=0.5))
    source = spans(tmp_path, ["a", "b"])
    with pytest.raises(kind, match=words) as raised:
        build_inline(source, tmp_path / "out", config, terms=terms())
    assert len(str(raised.value).splitlines()) == 1
    assert ledger(tmp_path / "out", config) == [] and stored(tmp_path / "out") == {}
    statement = account(tmp_path / "out")
    # A connection that broke off may have cost an answer; an error that was told has not.
    assert statement.spent == 0 and (statement.lost > 0) == (trouble == "deaf")
    api.account, api.models = "good", frozenset({MODEL})
    build_inline(source, tmp_path / "out", config, terms=terms())
    assert outcomes(tmp_path / "out") == [("kept", "")] * 2
    assert_conserved(tmp_path / "out", config)


def test_after_a_model_that_is_not_there_another_may_be_chosen(api: ClaudeApi, tmp_path: Path) -> None:
    """OUT then holds a plan for the first, and nothing else."""
    source, out, other = spans(tmp_path, ["a", "b"]), tmp_path / "out", "claude-haiku-5-5"
    api.models = frozenset({other})
    with pytest.raises(UsageMistake, match="choose another --model"):
        build_inline(source, out, CLAUDE, terms=terms())
    config = replace(CLAUDE, claude=Claude(model=other), unit_size=1)
    build_inline(source, out, config, terms=terms(model=other))
    assert [row.judge_model for row in ledger(out, config)] == [other] * 2
    assert_conserved(out, config)
    build_inline(source, tmp_path / "elsewhere", config, terms=terms(model=other))
    assert_same_dataset(out, tmp_path / "elsewhere", config)


TOUCHED = {
    "an answer is stored": "calls/train/000/000000/0-0.jsonl.gz",
    "a batch is open": "calls/batches/x.json.gz",
    "a unit is committed": "ledger/units/train-00000000.parquet",
    "a unit was cut": "parts/train-00000000.part",
    "a unit killed its worker": "parts/crashes/train-00000000.json",
    "a shard is sealed": "shards/train/000/nsp-000000.receipt.json",
}


@pytest.mark.parametrize("done", [*TOUCHED, "an answer was paid for"])
def test_a_plan_by_which_anything_was_done_stands(api: ClaudeApi, tmp_path: Path, done: str) -> None:
    source, out = spans(tmp_path, ["a", "b"]), Storage.at(tmp_path / "out")
    api.models = frozenset()
    with pytest.raises(UsageMistake, match="choose another --model"):
        build_inline(source, tmp_path / "out", CLAUDE, terms=terms())
    if done in TOUCHED:
        out.write(TOUCHED[done], b"x")
    else:
        out.write(ACCOUNT, Statement(spent=Decimal(1), allowance=Decimal(1), answers=1).to_bytes())
    before = _files(tmp_path / "out")
    with pytest.raises(UsageMistake, match=r"holds another plan: claude\.rounds is 2, was 3"):
        prepare(out, Source.at(str(source)), replace(CLAUDE, claude=Claude(rounds=2)))
    assert _files(tmp_path / "out") == before


def test_the_plan_of_a_judge_that_asks_nobody_stands_from_the_first(tmp_path: Path) -> None:
    source, out = Source.at(str(captioned_spans(tmp_path, 3))), Storage.at(tmp_path / "out")
    prepare(out, source, SMALL)
    with pytest.raises(UsageMistake, match="holds another plan: unit_size is 3, was 2"):
        prepare(out, source, replace(SMALL, unit_size=3))


class _OneShard:
    """Stands in for the engine: it seals the first shard, if it is to, and is then told that the key is no good."""

    seals = True

    def __init__(self, job: Job, *_: object) -> None:
        self._job = job

    def run(self, work: Iterator[ShardWork], committed: Callable[[list[tuple[str, str]]], None], _: object) -> None:
        job, first = self._job, next(work)
        for unit in first.todo if self.seals else ():
            captions = [Scene(clip.caption) for clip in unit.clips]
            committed(cut_unit(job, unit, screen_unit(job, unit), captions))
        if self.seals:
            seal_shard(job.out, first.name, first.units)
        raise UsageMistake("the key was revoked")


def test_files_of_the_same_names_where_no_plan_is_are_left_alone(tmp_path: Path) -> None:
    """What is not a dataset may be anybody's."""
    out = Storage.at(tmp_path / "out")
    for name in ("manifest.json", "summary.json"):
        out.write(name, b"mine")
    prepare(out, Source.at(str(captioned_spans(tmp_path, 3))), CLAUDE)
    assert [out.read(name) for name in ("manifest.json", "summary.json")] == [b"mine", b"mine"]


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> type[_OneShard]:
    monkeypatch.setattr("curation.run.connected", lambda *_: nullcontext())
    monkeypatch.setattr("curation.run.check_shared", lambda _: None)
    monkeypatch.setattr("curation.engine.Engine", _OneShard)
    return _OneShard


def test_a_key_that_is_revoked_in_the_middle_of_a_run_leaves_what_was_sealed_on_record(
    without_ray: type[_OneShard], tmp_path: Path
) -> None:
    order = Order(str(captioned_spans(tmp_path, 6)), str(tmp_path / "out"), SMALL)
    with pytest.raises(UsageMistake, match=r"the key was revoked\. All that was finished is kept"):
        build(order, Watch("cutting"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["samples"], summary["planned"], summary["complete"]) == (4, 6, False)
    manifest = Manifest.read(Storage.at(tmp_path / "out"))
    assert [shard.count for shard in manifest.shards] == [4]


def test_a_key_that_never_worked_leaves_nothing_on_record(
    without_ray: type[_OneShard], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(without_ray, "seals", False)
    order = Order(str(captioned_spans(tmp_path, 6)), str(tmp_path / "out"), SMALL)
    with pytest.raises(UsageMistake, match=r"^the key was revoked$"):
        build(order, Watch("cutting"))
    assert not (tmp_path / "out" / "summary.json").exists() and not (tmp_path / "out" / "manifest.json").exists()


# ---- what a killed run may have lost ---------------------------------------------------------------------------


def test_once_no_run_is_at_work_what_was_under_way_counts_as_lost_unless_it_is_in_a_batch(tmp_path: Path) -> None:
    """Of 10 dollars allowed, 1 is spent, 2 are set aside in one open batch, and 4 in one whose cost is known."""
    prepare(Storage.at(tmp_path / "out"), Source.at(str(captioned_spans(tmp_path, 3))), CLAUDE)
    out = Storage.at(tmp_path / "out")
    for name, worst in (("open", 2), ("known", 4)):
        OpenBatch(name, 0.0, Decimal(worst), {"key": "train/000/000000"}).write(out)
    out.write(ACCOUNT, Statement(Decimal(1), Decimal(0), Decimal(10), 5, ("known",)).to_bytes())

    def lost() -> float:
        spending = status(out, CLAUDE).spending
        assert spending and (spending.answers, spending.spent_usd) == (5, 1.0)
        return spending.lost_usd

    assert lost() == 10 - 1 - 2
    with held(out, "r"):
        assert lost() == 0
    dead = replace(Holder.me("r"), process_started=1.0)
    out.write(LOCK, dead.to_bytes())
    assert lost() == 10 - 1 - 2


# ---- clips without a caption -----------------------------------------------------------------------------------


def test_clips_without_a_caption_are_captioned_from_their_frames(api: ClaudeApi, tmp_path: Path) -> None:
    """A video, a short one, an image, one that cannot be decoded, and one that has a caption."""
    make_video(tmp_path / "long.mp4", 1.0)
    make_video(tmp_path / "short.mp4", 0.25)
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=900x600", "-frames:v", "1", str(tmp_path / "still.png"))
    _spoil(make_video(tmp_path / "spoiled.mp4", 0.5))
    rows = [{"video": name, "caption": ""} for name in ("long.mp4", "short.mp4", "still.png", "spoiled.mp4")]
    source = write_csv(tmp_path / "clips.csv", [*rows, {"video": "long.mp4", "id": "x", "caption": "a given caption"}])
    build_inline(source, tmp_path / "out", CLAUDE, terms=terms())
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
    build_inline(source, tmp_path / "again", CLAUDE, terms=terms())
    assert_same_dataset(tmp_path / "out", tmp_path / "again", CLAUDE)
    assert len(set(api.paid)) == len(api.exchanges) / 2


def test_a_clip_whose_caption_is_refused_is_refused(api: ClaudeApi, tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Blind(Mind):
        def caption(self, question: Question) -> Said:
            return Said(None, "refusal")

    api.mind = Blind()
    make_video(tmp_path / "in" / "a.mp4", 0.25)
    build_inline(tmp_path / "in", tmp_path / "out", CLAUDE, terms=terms())
    (row,) = ledger(tmp_path / "out", CLAUDE)
    assert (row.outcome, row.reason, row.caption, row.captioned_by) == ("refused", "frontier_llm", "", MODEL)
    assert_conserved(tmp_path / "out", CLAUDE)


# ---- asking anew -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Milder(Mind):
    """On second thoughts it refuses nothing, and passes all."""

    def answer(self, question: Question) -> Said:
        words = ("REFUSE-DESCRIBE", "REFUSE-VERIFY", "GARBLED", "FAIL3")
        body = json.dumps(question.body)
        for word in words:
            body = body.replace(word, "")
        return super().answer(Question(json.loads(body)))


BAD = ["one REFUSE-DESCRIBE", "two FAIL3", "three GARBLED", "four REFUSE-VERIFY"]
GOOD = ["five is well", "six is well FAIL1", "seven is well", "eight is well", "nine is well"]
ANEW = frozenset({"refused", "failed", "dropped"})


@pytest.fixture
def mixed(api: ClaudeApi, tmp_path: Path) -> Path:
    """A run of which four clips ended badly, in two of three units."""
    source = spans(tmp_path, [BAD[0], *GOOD[:3], *BAD[1:], *GOOD[3:]])
    build_inline(source, tmp_path / "out", CLAUDE, terms=terms())
    assert outcomes(tmp_path / "out") == [
        ("refused", "frontier_llm"), ("kept", ""), ("kept", ""), ("kept", ""),
        ("dropped", "no_pass"), ("failed", "unreadable_answer"), ("refused", "frontier_llm"), ("kept", ""), ("kept", "")
    ]  # fmt: skip
    return source


def test_a_retry_asks_anew_about_those_clips_alone(api: ClaudeApi, mixed: Path) -> None:
    out, before, rows = mixed.parent / "out", len(api.exchanges), ledger(mixed.parent / "out", CLAUDE)
    api.mind = Milder()
    build_inline(mixed, out, CLAUDE, ANEW, terms())
    anew = api.exchanges[before:]
    assert len(anew) == 4 * 2 == sum(len(asked_of(anew, caption)) for caption in BAD)
    after = ledger(out, CLAUDE)
    assert [row.outcome for row in after] == ["kept"] * 9
    for was, now in zip(rows, after, strict=True):
        bad = was.caption in BAD
        assert now.sample == int(bad)
        assert now == was or bad
    assert account(out).spent == true_cost(api.exchanges)
    assert sum((answer.usd for answer in stored(out).values()), Decimal(0)) == account(out).spent
    assert_conserved(out, CLAUDE)


def test_a_retry_of_refusals_leaves_what_was_dropped_or_failed(api: ClaudeApi, mixed: Path) -> None:
    out, before = mixed.parent / "out", len(api.exchanges)
    api.mind = Milder()
    build_inline(mixed, out, CLAUDE, frozenset({"refused"}), terms())
    assert [row.reason for row in ledger(out, CLAUDE)] == ["", "", "", "", "no_pass", "unreadable_answer", "", "", ""]
    assert len(api.exchanges) == before + 2 * 2
    assert_conserved(out, CLAUDE)


def test_a_retry_that_was_stopped_does_not_ask_the_same_again(api: ClaudeApi, mixed: Path) -> None:
    out, before = mixed.parent / "out", len(api.exchanges)
    api.mind = Milder()
    _then(api, answers=3, happens=lambda: _fall(api))
    with pytest.raises(RunStopped):
        build_inline(mixed, out, CLAUDE, ANEW, terms())
    assert_conserved(out, CLAUDE)
    api.account = "good"
    build_inline(mixed, out, CLAUDE, ANEW, terms())
    anew = [exchange.digest for exchange in api.exchanges[before:] if exchange.status == 200]
    assert len(anew) == len(set(anew)) == 8
    assert [row.outcome for row in ledger(out, CLAUDE)] == ["kept"] * 9
    assert account(out).spent == true_cost(api.exchanges)
    assert_conserved(out, CLAUDE)


def test_a_retry_after_a_retry_asks_once_more_about_what_is_still_bad(api: ClaudeApi, mixed: Path) -> None:
    """The second asking mends one clip of the first shard; the third must not give the answers of the second."""
    out = mixed.parent / "out"
    api.mind = _forgetting("GARBLED")
    build_inline(mixed, out, CLAUDE, ANEW, terms())
    assert [row.outcome for row in ledger(out, CLAUDE)].count("kept") == 6
    before, api.mind = len(api.exchanges), Milder()
    build_inline(mixed, out, CLAUDE, ANEW, terms())
    assert len(api.exchanges) == before + 3 * 2
    rows = ledger(out, CLAUDE)
    assert [row.outcome for row in rows] == ["kept"] * 9
    assert sorted(row.sample for row in rows) == [0] * 5 + [1] + [2] * 3
    assert_conserved(out, CLAUDE)


def test_a_retry_in_vain_is_on_record_and_the_next_one_asks_once_more(api: ClaudeApi, mixed: Path) -> None:
    """Two rounds of answers as bad as the first; the kept clips are never asked about."""
    out = mixed.parent / "out"
    for times in (1, 2):
        before = len(api.exchanges)
        build_inline(mixed, out, CLAUDE, ANEW, terms())
        anew = api.exchanges[before:]
        assert len(anew) == sum(len(asked_of(anew, caption)) for caption in BAD) == 1 + 6 + 3 + 2
        rows = ledger(out, CLAUDE)
        assert [row.sample for row in rows] == [times * (row.caption in BAD) for row in rows]
        assert account(out).spent == true_cost(api.exchanges)
        assert_conserved(out, CLAUDE)


def test_a_retry_repeated_with_nothing_left_to_retry_asks_nothing(api: ClaudeApi, mixed: Path) -> None:
    out = mixed.parent / "out"
    api.mind = Milder()
    build_inline(mixed, out, CLAUDE, ANEW, terms())
    before = len(api.exchanges)
    build_inline(mixed, out, CLAUDE, ANEW, terms())
    assert len(api.exchanges) == before


def test_the_answers_of_a_clip_that_failed_for_another_reason_are_used_again(api: ClaudeApi, tmp_path: Path) -> None:
    """Its file had been damaged; the judge had answered before that showed."""
    good = make_video(tmp_path / "in" / "a.mp4", 0.5)
    whole, stat = good.read_bytes(), good.stat()
    _spoil(good)
    os.utime(good, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    make_video(tmp_path / "in" / "b.mp4", 0.25)
    rows = [{"video": "a.mp4", "caption": "one thing FAIL1"}, {"video": "b.mp4", "caption": "another"}]
    source = write_csv(tmp_path / "in" / "clips.csv", rows)
    build_inline(source, tmp_path / "out", CLAUDE, terms=terms())
    first, other = ledger(tmp_path / "out", CLAUDE)
    assert (first.outcome, len(calls(first)), other.outcome) == ("failed", 4, "kept")
    good.write_bytes(whole)
    os.utime(good, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    before, spent = len(api.exchanges), account(tmp_path / "out").spent
    build_inline(source, tmp_path / "out", CLAUDE, ANEW, terms())
    mended, same = ledger(tmp_path / "out", CLAUDE)
    assert (mended.outcome, mended.sample, mended.calls) == ("kept", 0, first.calls)
    assert mended.scene_description == first.scene_description and same == other
    assert len(api.exchanges) == before and account(tmp_path / "out").spent == spent
    assert_conserved(tmp_path / "out", CLAUDE)


def test_a_source_put_in_place_is_asked_about_for_the_first_time_and_its_neighbours_not_again(
    api: ClaudeApi, tmp_path: Path
) -> None:
    make_video(tmp_path / "in" / "a.mp4", 0.25)
    rows = [{"video": "a.mp4", "caption": "one thing"}, {"video": "late.mp4", "caption": "a late thing"}]
    source = write_csv(tmp_path / "in" / "clips.csv", rows)
    build_inline(source, tmp_path / "out", CLAUDE, terms=terms())
    assert outcomes(tmp_path / "out") == [("kept", ""), ("failed", "source_missing")]
    assert len(api.exchanges) == 2
    make_video(tmp_path / "in" / "late.mp4", 0.25)
    build_inline(source, tmp_path / "out", CLAUDE, ANEW, terms())
    assert [(row.outcome, row.sample) for row in ledger(tmp_path / "out", CLAUDE)] == [("kept", 0), ("kept", 0)]
    assert len(api.exchanges) == len(set(api.paid)) == 4
    assert_conserved(tmp_path / "out", CLAUDE)


# ---- tools -----------------------------------------------------------------------------------------------------


def _answered(asked: Asked, marker: str) -> list[Any]:
    """The exchanges that were answered about a marker's clip, in order."""
    found = asked_of(asked.api.exchanges, asked.caption(marker))
    # The caption without a marker is the beginning of no other one.
    return [exchange for exchange in found if exchange.status == 200]


def _task(body: dict[str, Any]) -> str:
    return "describe" if "Predict the most likely prior event" in Question(body).said else "verify"


def _shown(asked: Asked, body: dict[str, Any]) -> str:
    return asked.api.mind.answer(Question(body)).text or ""


def _files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def _spoil(video: Path) -> None:
    """The headers stay; all pictures are gone."""
    data = video.read_bytes()
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4 if data.index(b"moov") > begin else len(data)
    video.write_bytes(data[:begin] + bytes(end - begin) + data[end:])


def _then(api: ClaudeApi, answers: int, happens: Callable[[], None]) -> None:
    """Something that happens on the server after so many answers from now on."""
    left, answer = answers, api.answer

    def counted(question: Question, tier: str) -> dict[str, Any]:
        nonlocal left
        left -= 1
        if left == 0:
            happens()
        return answer(question, tier)

    api.answer = counted  # type: ignore[method-assign]


def _fall(api: ClaudeApi) -> None:
    api.account = "spend_limit"


def _forgetting(word: str) -> Mind:
    @dataclass(frozen=True, kw_only=True)
    class Forgetful(Mind):
        def answer(self, question: Question) -> Said:
            return super().answer(Question(json.loads(json.dumps(question.body).replace(word, ""))))

    return Forgetful()


def _hasty(limits: Limits) -> Any:
    from judge.patience import Patience

    return Patience(limits.calls_at_once, limits.call_seconds, limits.outage_seconds, 0.3)
