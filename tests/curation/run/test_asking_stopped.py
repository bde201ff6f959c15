"""The judge `claude` stopped, by the account, the model or a kill: what is kept, and what counts as lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.fence import LOCK
from nextscene.common.lease import Holder
from nextscene.common.process_identity import ProcessIdentity
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage, StorageFault
from nextscene.curation.config import RunLimits
from nextscene.curation.inspect.status import status
from nextscene.curation.run.prepare import prepare
from nextscene.curation.run.run import BuildRequest, build
from nextscene.curation.sealing.remaining import ShardWork
from nextscene.curation.sealing.seal_shard import seal_shard
from nextscene.curation.sources import Source
from nextscene.curation.stages.describe import DescribedScene
from nextscene.curation.stages.unit import UnitContext, cut_unit, screen_unit
from nextscene.judge.api.batch_record import BatchRecord
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.spending.answer_segments import write_segments
from nextscene.judge.spending.budget_record import ACCOUNT, BudgetRecord
from nextscene.pipelines.cli.stage_progress import BuildProgress
from nextscene.shards.format.manifest import Manifest
from tests.fakes.claude_api import AnswerRules, ClaudeApi
from tests.fakes.loopback import (
    CLAUDE,
    MODEL,
    account,
    after_answers,
    calls,
    files_of,
    judge_budget,
    outcomes,
    reach_spend_limit,
    spans,
    stored,
    true_cost,
)
from tests.fakes.without_ray import in_this_process
from tests.judge.support import USD, answer
from tests.support import (
    SMALL,
    assert_conserved,
    assert_same_dataset,
    build_inline,
    captioned_spans,
    ledger,
    make_video,
    problems,
)

pytestmark = pytest.mark.slow


# ---- what stops the run ----------------------------------------------------------------------------------------


def test_when_the_account_stops_the_run_what_was_answered_is_not_asked_again(api: ClaudeApi, tmp_path: Path) -> None:
    source = spans(tmp_path, [f"thing {i} of many FAIL1" for i in range(6)])
    after_answers(api, answers=7, happens=lambda: reach_spend_limit(api))
    with pytest.raises(RunStopped, match="spend limit"):
        build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    before = {answer.request_id for answer in stored(tmp_path / "out").values()}
    assert len(before) >= 7 and account(tmp_path / "out").spent == true_cost(api.exchanges)
    api.account = "good"
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
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
    "unknown model": (UsageError, r"does not know the model.*choose another model"),
}


@pytest.mark.parametrize("trouble", STOPS)
def test_account_and_server_errors_stop_the_run_with_the_remedy(api: ClaudeApi, tmp_path: Path, trouble: str) -> None:
    kind, words = STOPS[trouble]
    if trouble == "unknown model":
        api.models = frozenset()
    else:
        api.account = trouble
    config = replace(CLAUDE, limits=RunLimits(outage_seconds=0.5))
    source = spans(tmp_path, ["a", "b"])
    with pytest.raises(kind, match=words) as raised:
        build_inline(source, tmp_path / "out", config, judge_budget=judge_budget())
    assert len(str(raised.value).splitlines()) == 1
    assert ledger(tmp_path / "out", config) == [] and stored(tmp_path / "out") == {}
    statement = account(tmp_path / "out")
    # A connection that broke off may have cost an answer; an error that was told has not.
    assert statement.spent == 0 and (statement.lost > 0) == (trouble == "deaf")
    api.account, api.models = "good", frozenset({MODEL})
    build_inline(source, tmp_path / "out", config, judge_budget=judge_budget())
    assert outcomes(tmp_path / "out") == [("kept", "")] * 2
    assert_conserved(tmp_path / "out", config)


@pytest.mark.parametrize("retried", [False, True])
def test_what_was_paid_for_a_clip_whose_file_has_gone_since_stands_in_its_row(
    retried: bool, api: ClaudeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, outcomes_again = tmp_path / "in", tmp_path / "out", frozenset[str]()
    for name, caption in (("a", "a dog runs"), ("b", "a cat sits"), ("c", "a cat sits")):
        make_video(source / f"{name}.mp4", 0.25, "854x480")
        (source / f"{name}.txt").write_text(caption)
    if retried:
        api.rules = AnswerRules(pass_rate=0.0)
        build_inline(source, out, CLAUDE, judge_budget=judge_budget())
        api.rules, outcomes_again = AnswerRules(), frozenset({"dropped"})
    paid_before = account(out).spent if retried else Decimal(0)
    with monkeypatch.context() as patch, pytest.raises(StorageFault):
        patch.setattr("nextscene.curation.stages.unit.cut_clip", _die)
        build_inline(source, out, CLAUDE, outcomes_again, judge_budget())
    assert account(out).spent > paid_before
    (source / "a.mp4").unlink()
    build_inline(source, out, CLAUDE, outcomes_again, judge_budget())
    rows = ledger(out, CLAUDE)
    assert [row.reason for row in rows] == ["source_changed", "", ""]
    in_rows = [call for row in rows for call in calls(row)]
    assert account(out).spent == sum(Decimal(call["usd"]) for call in in_rows)
    assert len({(call["key"], call["message_id"]) for call in in_rows if not call["shared"]}) == len(stored(out))
    assert not problems(out, CLAUDE)


def _die(*_: object) -> None:
    raise MemoryError("as if it were killed")


def test_what_was_paid_for_a_clip_that_then_fails_stays_in_its_row(
    api: ClaudeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*_: object) -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr("nextscene.curation.stages.unit.cut_clip", changed)
    build_inline(spans(tmp_path, ["a", "b"]), tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    rows = ledger(tmp_path / "out")
    assert [row.reason for row in rows] == ["unexpected"] * 2
    assert account(tmp_path / "out").spent == sum(Decimal(call["usd"]) for row in rows for call in calls(row)) > 0


def test_after_a_model_that_is_not_there_another_may_be_chosen(api: ClaudeApi, tmp_path: Path) -> None:
    """OUT then holds a plan for the first, and nothing else."""
    source, out, other = spans(tmp_path, ["a", "b"]), tmp_path / "out", "claude-haiku-5-5"
    api.models = frozenset({other})
    with pytest.raises(UsageError, match="choose another model"):
        build_inline(source, out, CLAUDE, judge_budget=judge_budget())
    config = replace(CLAUDE, claude=ClaudeConfig(model=other), unit_size=1)
    build_inline(source, out, config, judge_budget=judge_budget(model=other))
    assert [row.judge_model for row in ledger(out, config)] == [other] * 2
    assert_conserved(out, config)
    build_inline(source, tmp_path / "elsewhere", config, judge_budget=judge_budget(model=other))
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
    with pytest.raises(UsageError, match="choose another model"):
        build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    if done in TOUCHED:
        out.write(TOUCHED[done], b"x")
    else:
        write_segments(out, [answer("a" * 64)])
    before = files_of(tmp_path / "out")
    with pytest.raises(UsageError, match=r"holds another plan: claude\.rounds is 2, was 3"):
        prepare(out, Source.at(str(source)), replace(CLAUDE, claude=ClaudeConfig(rounds=2)))
    assert files_of(tmp_path / "out") == before


def test_the_plan_of_a_judge_that_asks_nobody_stands_from_the_first(tmp_path: Path) -> None:
    source, out = Source.at(str(captioned_spans(tmp_path, 3))), Storage.at(tmp_path / "out")
    prepare(out, source, SMALL)
    with pytest.raises(UsageError, match="holds another plan: unit_size is 3, was 2"):
        prepare(out, source, replace(SMALL, unit_size=3))


class _OneShard:
    """Stands in for the engine: it seals the first shard, if it is to, and is then told that the key is no good."""

    seals = True

    def __init__(self, job: UnitContext, *_: object) -> None:
        self._job = job

    def run(self, work: Iterator[ShardWork], _: object) -> None:
        job, first = self._job, next(work)
        for unit in first.todo if self.seals else ():
            captions = [DescribedScene(clip.caption) for clip in unit.clips]
            cut_unit(job, unit, screen_unit(job, unit), captions)
        if self.seals:
            seal_shard(job.out, first.name, first.units)
        raise UsageError("the key was revoked")


def test_files_of_the_same_names_where_no_plan_is_are_left_alone(tmp_path: Path) -> None:
    """What is not a dataset may be anybody's."""
    out = Storage.at(tmp_path / "out")
    for name in ("manifest.json", "summary.json"):
        out.write(name, b"mine")
    prepare(out, Source.at(str(captioned_spans(tmp_path, 3))), CLAUDE)
    assert [out.read(name) for name in ("manifest.json", "summary.json")] == [b"mine", b"mine"]


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> type[_OneShard]:
    monkeypatch.setattr("nextscene.curation.run.run.supervise", in_this_process)
    monkeypatch.setattr("nextscene.curation.run.build_on_ray.check_shared", lambda _: None)
    monkeypatch.setattr("nextscene.curation.run.engine.Engine", _OneShard)
    return _OneShard


def test_a_key_revoked_during_a_run_leaves_the_sealed_shards_on_record(
    without_ray: type[_OneShard], tmp_path: Path
) -> None:
    order = BuildRequest(str(captioned_spans(tmp_path, 6)), str(tmp_path / "out"), SMALL)
    with pytest.raises(UsageError, match=r"the key was revoked\. All that is decided is kept"):
        build(order, BuildProgress())
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["samples"], summary["planned"], summary["complete"]) == (4, 6, False)
    manifest = Manifest.read(Storage.at(tmp_path / "out"))
    assert [shard.count for shard in manifest.shards] == [4]


def test_a_key_that_never_worked_leaves_nothing_on_record(
    without_ray: type[_OneShard], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(without_ray, "seals", False)
    order = BuildRequest(str(captioned_spans(tmp_path, 6)), str(tmp_path / "out"), SMALL)
    with pytest.raises(UsageError, match=r"^the key was revoked$"):
        build(order, BuildProgress())
    assert not (tmp_path / "out" / "summary.json").exists() and not (tmp_path / "out" / "manifest.json").exists()


# ---- what a killed run may have lost ---------------------------------------------------------------------------


def test_after_a_run_its_open_calls_count_as_lost_unless_in_a_batch(tmp_path: Path) -> None:
    """Of 10 dollars allowed, what the stored answers cost is spent, and 2 are set aside in an open batch."""
    prepare(Storage.at(tmp_path / "out"), Source.at(str(captioned_spans(tmp_path, 3))), CLAUDE)
    out = Storage.at(tmp_path / "out")
    BatchRecord("open", 0.0, Decimal(2), {"key": "clip"}).write(out)
    write_segments(out, [answer(letter * 64) for letter in "abcde"])
    out.write(ACCOUNT, BudgetRecord(Decimal(1), Decimal(0), Decimal(10), 4, is_open=True, journal="gone").to_bytes())

    def lost(at_work: bool = False) -> float:
        spending = status(out, CLAUDE).spending
        assert spending
        assert (spending.answers, spending.spent_usd) == ((4, 1.0) if at_work else (5, float(5 * USD)))
        return spending.lost_usd

    assert lost() == 10 - float(5 * USD) - 2
    with hold_lock(out, "r"):
        assert lost(at_work=True) == 0
    dead = replace(Holder.me("r"), process=replace(ProcessIdentity.me(), start="1"))
    out.write(LOCK, dead.to_bytes())
    assert lost() == 10 - float(5 * USD) - 2
