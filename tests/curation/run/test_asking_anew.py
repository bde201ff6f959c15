"""`--retry` under the judge `claude`: who is asked about anew, at what cost, and whose answers are used again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nextscene.common.errors import RunStopped
from nextscene.curation.config import BuildConfig
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.plan import PlannedClip
from nextscene.curation.stages import unit
from nextscene.curation.stages.cut import Cut
from tests.fakes.claude_api import Answer as Said
from tests.fakes.claude_api import AnswerRules, ClaudeApi, Question
from tests.fakes.loopback import (
    CLAUDE,
    account,
    after_answers,
    asked_of,
    calls,
    judge_budget,
    outcomes,
    reach_spend_limit,
    spans,
    stored,
    true_cost,
)
from tests.support import assert_conserved, build_inline, ledger, make_video, problems, write_csv

pytestmark = pytest.mark.slow


# ---- asking anew -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Milder(AnswerRules):
    """On second thoughts it refuses nothing, and passes all."""

    def answer(self, question: Question) -> Said:
        words = ("REFUSE-DESCRIBE", "REFUSE-VERIFY", "GARBLED", "FAIL3")
        body = json.dumps(question.body)
        for word in words:
            body = body.replace(word, "")
        return super().answer(Question(json.loads(body)))


BAD = ["one REFUSE-DESCRIBE", "two FAIL3", "three GARBLED", "four REFUSE-VERIFY"]
GOOD = ["five is well", "six is well FAIL1", "seven is well", "eight is well", "nine is well"]
ANEW = frozenset({"refused", "failed", "dropped", "absent"})


@pytest.fixture
def mixed(api: ClaudeApi, tmp_path: Path) -> Path:
    """A run of which four clips ended badly, in two of three units."""
    source = spans(tmp_path, [BAD[0], *GOOD[:3], *BAD[1:], *GOOD[3:]])
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    assert outcomes(tmp_path / "out") == [
        ("refused", "frontier_llm"),
        ("kept", ""),
        ("kept", ""),
        ("kept", ""),
        ("dropped", "no_pass"),
        ("failed", "unreadable_answer"),
        ("refused", "frontier_llm"),
        ("kept", ""),
        ("kept", ""),
    ]
    return source


def test_a_retry_asks_anew_about_those_clips_alone(api: ClaudeApi, mixed: Path) -> None:
    out, before, rows = mixed.parent / "out", len(api.exchanges), ledger(mixed.parent / "out", CLAUDE)
    api.rules = Milder()
    build_inline(mixed, out, CLAUDE, ANEW, judge_budget())
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
    api.rules = Milder()
    build_inline(mixed, out, CLAUDE, frozenset({"refused"}), judge_budget())
    assert [row.reason for row in ledger(out, CLAUDE)] == ["", "", "", "", "no_pass", "unreadable_answer", "", "", ""]
    assert len(api.exchanges) == before + 2 * 2
    assert_conserved(out, CLAUDE)


def test_a_retry_that_was_stopped_does_not_ask_the_same_again(api: ClaudeApi, mixed: Path) -> None:
    out, before = mixed.parent / "out", len(api.exchanges)
    api.rules = Milder()
    after_answers(api, answers=3, happens=lambda: reach_spend_limit(api))
    with pytest.raises(RunStopped):
        build_inline(mixed, out, CLAUDE, ANEW, judge_budget())
    (problem,) = problems(out, CLAUDE)
    assert "SHA256SUMS is missing: the last run was not concluded; run the build again" in problem
    api.account = "good"
    build_inline(mixed, out, CLAUDE, ANEW, judge_budget())
    assert_conserved(out, CLAUDE)
    anew = [exchange.digest for exchange in api.exchanges[before:] if exchange.status == 200]
    assert len(anew) == len(set(anew)) == 8
    assert [row.outcome for row in ledger(out, CLAUDE)] == ["kept"] * 9
    assert account(out).spent == true_cost(api.exchanges)
    assert_conserved(out, CLAUDE)


def test_a_retry_after_a_retry_asks_once_more_about_what_is_still_bad(api: ClaudeApi, mixed: Path) -> None:
    """The second asking mends one clip of the first shard; the third must not give the answers of the second."""
    out = mixed.parent / "out"
    api.rules = _forgetting("GARBLED")
    build_inline(mixed, out, CLAUDE, ANEW, judge_budget())
    assert [row.outcome for row in ledger(out, CLAUDE)].count("kept") == 6
    before, api.rules = len(api.exchanges), Milder()
    build_inline(mixed, out, CLAUDE, ANEW, judge_budget())
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
        build_inline(mixed, out, CLAUDE, ANEW, judge_budget())
        anew = api.exchanges[before:]
        assert len(anew) == sum(len(asked_of(anew, caption)) for caption in BAD) == 1 + 6 + 3 + 2
        rows = ledger(out, CLAUDE)
        assert [row.sample for row in rows] == [times * (row.caption in BAD) for row in rows]
        assert account(out).spent == true_cost(api.exchanges)
        assert_conserved(out, CLAUDE)


def test_a_retry_repeated_with_nothing_left_to_retry_asks_nothing(api: ClaudeApi, mixed: Path) -> None:
    out = mixed.parent / "out"
    api.rules = Milder()
    build_inline(mixed, out, CLAUDE, ANEW, judge_budget())
    before = len(api.exchanges)
    build_inline(mixed, out, CLAUDE, ANEW, judge_budget())
    assert len(api.exchanges) == before


def test_the_answers_of_a_clip_that_failed_for_another_reason_are_used_again(
    api: ClaudeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took too long to cut; the judge had answered before that showed."""
    make_video(tmp_path / "in" / "a.mp4", 0.5)
    make_video(tmp_path / "in" / "b.mp4", 0.25)
    rows = [{"video": "a.mp4", "caption": "one thing FAIL1"}, {"video": "b.mp4", "caption": "another"}]
    source = write_csv(tmp_path / "in" / "clips.csv", rows)
    cut_clip = unit.cut_clip

    def slow(config: BuildConfig, clip: PlannedClip, *given: Any) -> Cut | ClipOutcome:
        return ClipOutcome("failed", "timeout", "") if clip.name == "a.mp4" else cut_clip(config, clip, *given)

    with monkeypatch.context() as patch:
        patch.setattr(unit, "cut_clip", slow)
        build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    first, other = ledger(tmp_path / "out", CLAUDE)
    assert (first.outcome, len(calls(first)), other.outcome) == ("failed", 4, "kept")
    before, spent = len(api.exchanges), account(tmp_path / "out").spent
    build_inline(source, tmp_path / "out", CLAUDE, ANEW, judge_budget())
    mended, same = ledger(tmp_path / "out", CLAUDE)
    assert (mended.outcome, mended.sample, mended.calls) == ("kept", 0, first.calls)
    assert mended.scene_description == first.scene_description and same == other
    assert len(api.exchanges) == before and account(tmp_path / "out").spent == spent
    assert_conserved(tmp_path / "out", CLAUDE)


def test_a_restored_source_is_asked_about_and_its_neighbors_are_not(api: ClaudeApi, tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "a.mp4", 0.25)
    rows = [{"video": "a.mp4", "caption": "one thing"}, {"video": "late.mp4", "caption": "a late thing"}]
    source = write_csv(tmp_path / "in" / "clips.csv", rows)
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    assert outcomes(tmp_path / "out") == [("kept", ""), ("absent", "no_file")]
    assert len(api.exchanges) == 2
    make_video(tmp_path / "in" / "late.mp4", 0.25)
    build_inline(source, tmp_path / "out", CLAUDE, ANEW, judge_budget())
    assert [(row.outcome, row.sample) for row in ledger(tmp_path / "out", CLAUDE)] == [("kept", 0), ("kept", 0)]
    assert len(api.exchanges) == len(set(api.paid)) == 4
    assert_conserved(tmp_path / "out", CLAUDE)


def _forgetting(word: str) -> AnswerRules:
    @dataclass(frozen=True, kw_only=True)
    class Forgetful(AnswerRules):
        def answer(self, question: Question) -> Said:
            return super().answer(Question(json.loads(json.dumps(question.body).replace(word, ""))))

    return Forgetful()
