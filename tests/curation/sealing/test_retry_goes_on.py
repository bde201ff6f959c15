"""A `--retry` that was stopped continues: what it has sealed is done, and nothing is bought twice."""

from __future__ import annotations

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.storage import Storage
from nextscene.curation.inspect.status import status
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sources import Source
from nextscene.shards.format.layout import RETRY
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import (
    CLAUDE,
    account,
    after_answers,
    asked_of,
    calls,
    judge_budget,
    reach_spend_limit,
    spans,
    spoil,
    true_cost,
)
from tests.support import assert_conserved, assert_same_dataset, build_inline, ledger, make_video, problems, write_csv

pytestmark = pytest.mark.slow

SMALL_SHARDS = replace(CLAUDE, unit_size=2, units_per_shard=1)
ANEW = frozenset({"absent", "failed", "dropped", "refused"})
BAD = ["one GARBLED", "three FAIL3", "five REFUSE-VERIFY"]
ANSWERS = {"one GARBLED": 3, "three FAIL3": 6, "five REFUSE-VERIFY": 2}
"""Each stands in a shard of its own, ends badly whenever it is asked about, and takes so many answers to."""


def build(source: Path, out: Path, retry: frozenset[str] = frozenset()) -> None:
    build_inline(source, out, SMALL_SHARDS, retry, judge_budget())


def in_rows(out: Path) -> Decimal:
    return sum((Decimal(call["usd"]) for row in ledger(out, SMALL_SHARDS) for call in calls(row)), Decimal(0))


def stop_in_the_second_shard(api: ClaudeApi, source: Path, out: Path) -> None:
    """A spend limit is reached once the second shard has had its first answer."""
    after_answers(api, ANSWERS[BAD[0]] + 1, lambda: reach_spend_limit(api))
    with pytest.raises(RunStopped, match="spend limit"):
        build(source, out, ANEW)
    api.account = "good"


@pytest.fixture
def source(api: ClaudeApi, tmp_path: Path) -> Path:
    return spans(tmp_path, [BAD[0], "two is well", BAD[1], "four is well", BAD[2], "six is well"])


@pytest.fixture
def out(api: ClaudeApi, source: Path, tmp_path: Path) -> Path:
    build(source, tmp_path / "out")
    return tmp_path / "out"


def test_shards_sealed_before_the_stop_stay_and_paid_answers_are_reused(
    api: ClaudeApi, source: Path, out: Path, tmp_path: Path
) -> None:
    before = len(api.exchanges)
    stop_in_the_second_shard(api, source, out)
    stopped = len(api.exchanges)
    assert status(Storage.at(out), SMALL_SHARDS).retry_left == 2
    build(source, out, ANEW)
    assert not asked_of(api.exchanges[stopped:], BAD[0])
    bought = [exchange for exchange in api.exchanges[before:] if exchange.usage]
    assert {caption: len(asked_of(bought, caption)) for caption in BAD} == ANSWERS
    assert len(bought) == sum(ANSWERS.values())
    assert account(out).spent == in_rows(out) == true_cost(api.exchanges)
    for retry in (frozenset[str](), ANEW):
        build(source, tmp_path / "calm", retry)
    assert_same_dataset(tmp_path / "calm", out, SMALL_SHARDS)
    assert_conserved(out, SMALL_SHARDS)


def test_once_it_is_done_the_next_retry_is_a_new_one(api: ClaudeApi, source: Path, out: Path) -> None:
    stop_in_the_second_shard(api, source, out)
    build(source, out, ANEW)
    assert not (out / RETRY).exists()
    before = len(api.exchanges)
    build(source, out, ANEW)
    assert len(api.exchanges) == before + sum(ANSWERS.values())
    assert [row.sample for row in ledger(out, SMALL_SHARDS)] == [2, 0, 2, 0, 2, 0]
    assert not (out / RETRY).exists()
    assert account(out).spent == in_rows(out) == true_cost(api.exchanges)


def test_another_retry_is_refused_while_one_is_open(api: ClaudeApi, source: Path, out: Path) -> None:
    stop_in_the_second_shard(api, source, out)
    before = len(api.exchanges)
    with pytest.raises(UsageError, match=r"unfinished `retry` absent,dropped,failed,refused.*delete .*retry\.json"):
        build(source, out, frozenset({"failed"}))
    assert len(api.exchanges) == before
    (out / RETRY).unlink()
    build(source, out, frozenset({"failed"}))
    assert [row.sample for row in ledger(out, SMALL_SHARDS)] == [2, 0, 0, 0, 0, 0]


def test_a_run_without_retry_leaves_an_open_one_and_says_so(
    api: ClaudeApi, source: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop_in_the_second_shard(api, source, out)
    before = len(api.exchanges)
    build(source, out)
    assert any("`retry` absent,dropped,failed,refused" in line and "continues" in line for line in caplog.messages)
    assert_conserved(out, SMALL_SHARDS)
    build(source, out, ANEW)
    bought = [exchange for exchange in api.exchanges[before:] if exchange.usage]
    assert not asked_of(bought, BAD[0]) and len(bought) == ANSWERS[BAD[1]] - 1 + ANSWERS[BAD[2]]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"outcomes": ["failed"], "shards": ["shards/train/000/x"]}', b"[]"])
def test_a_damaged_record_is_named_with_its_remedy(api: ClaudeApi, source: Path, out: Path, damage: bytes) -> None:
    (out / RETRY).write_bytes(damage)
    with pytest.raises(UsageError, match=r"retry\.json is damaged.*delete it"):
        build(source, out, ANEW)
    build(source, out)
    (problem,) = problems(out, SMALL_SHARDS)
    assert "retry.json is damaged" in problem and "delete it" in problem


# ---- nothing that was paid leaves its row ------------------------------------------------------------------------


def test_a_clip_that_ends_as_before_keeps_what_was_paid_for_it_in_between(api: ClaudeApi, tmp_path: Path) -> None:
    """Its file is gone as it is screened; at the retry it is there, is asked about, and is gone before it is cut."""
    film, away = make_video(tmp_path / "in" / "a.mp4", 0.25), tmp_path / "a.away"
    make_video(tmp_path / "in" / "b.mp4", 0.25)
    rows = [{"video": "a.mp4", "caption": "one thing"}, {"video": "b.mp4", "caption": "another"}]
    source, out = write_csv(tmp_path / "in" / "clips.csv", rows), tmp_path / "out"
    prepare(Storage.at(out), Source.at(str(source)), SMALL_SHARDS, judge_budget())
    film.rename(away)
    build(source, out)
    away.rename(film)
    after_answers(api, 2, lambda: film.rename(away) and None)
    build(source, out, ANEW)
    gone, _ = ledger(out, SMALL_SHARDS)
    assert (gone.outcome, gone.reason, len(calls(gone))) == ("failed", "source_changed", 2)
    assert account(out).spent == in_rows(out) == true_cost(api.exchanges)


def test_a_clip_keeps_its_paid_cost_though_an_earlier_one_shares_its_question(api: ClaudeApi, tmp_path: Path) -> None:
    """The later one asked first, and fails for its pictures: at the retry both have its answers, one has their cost."""
    late, bad = make_video(tmp_path / "in" / "a.mp4", 0.25), make_video(tmp_path / "in" / "b.mp4", 0.25)
    rows = [{"video": "a.mp4", "caption": "the same"}, {"video": "b.mp4", "caption": "the same"}]
    source, out = write_csv(tmp_path / "in" / "clips.csv", rows), tmp_path / "out"
    stat = bad.stat()
    spoil(bad)
    os.utime(bad, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    late.rename(tmp_path / "a.later")
    build(source, out)
    (tmp_path / "a.later").rename(late)
    build(source, out, ANEW)
    first, second = ledger(out, SMALL_SHARDS)
    assert (first.outcome, second.outcome, first.usd) == ("kept", "failed", 0)
    assert account(out).spent == in_rows(out) == true_cost(api.exchanges)
