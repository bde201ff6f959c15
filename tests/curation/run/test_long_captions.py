"""Captions too long for the model: each is the end of its own clip, and costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.errors import RunStopped
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.run.run import BuildRequest, build
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.pipelines.cli.stage_progress import BuildProgress
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import CLAUDE, account, asked_of, judge_budget, loopback, outcomes, spans, true_cost
from tests.support import assert_conserved, build_inline, ledger

CONTEXT = 20_000
SURELY = "a dog walks " * (6 * CONTEXT // 12)
"""Six bytes for each token of the context."""
PERHAPS = "a cat runs x" * (9 * CONTEXT // 2 // 12)
"""Of four and a half; the server counts one for each four."""


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    monkeypatch.setattr("nextscene.judge.api.batch_api._FIRST_POLL_SECONDS", 0.05)
    monkeypatch.setattr("nextscene.curation.run.unit_judge.patience", lambda limits: RetryPolicy(quiet_seconds=0.3))
    for api in loopback(monkeypatch):
        api.context = CONTEXT
        yield api


def terms_of_small_context(in_batches: bool = False) -> JudgeBudget:
    given = judge_budget("1", in_batches=in_batches)
    return replace(given, price=replace(given.price, context=CONTEXT))


@pytest.mark.slow
@pytest.mark.parametrize("in_batches", [False, True])
def test_a_caption_that_does_not_fit_is_the_end_of_its_clip_alone(
    in_batches: bool, api: ClaudeApi, tmp_path: Path
) -> None:
    source = spans(tmp_path, [SURELY, "a red thing", PERHAPS, "a blue thing"])
    config = replace(CLAUDE, limits=replace(CLAUDE.limits, batch_clips=4))
    given = terms_of_small_context(in_batches)
    for retry in (frozenset[str](), frozenset(["failed"])):
        build_inline(source, tmp_path / "out", config, retry=retry, judge_budget=given)
        assert outcomes(tmp_path / "out") == [("failed", "caption_too_long"), ("kept", "")] * 2
        assert_conserved(tmp_path / "out", config)
    surely, _, perhaps, _ = ledger(tmp_path / "out", config)
    assert surely.detail.startswith("describe: a prompt of 120,") and "20,000 tokens" in surely.detail
    assert "HTTP 400: prompt is too long: 22" in perhaps.detail
    assert (surely.calls, perhaps.calls, surely.usd, perhaps.usd) == ("", "", 0.0, 0.0)
    assert {surely.sample, perhaps.sample} == {0}, "a retry does not ask in other words"
    assert asked_of(api.exchanges, SURELY) == [], "it is not even sent"
    assert not any(SURELY in str(body) for batch in api.batches for body in batch.bodies)
    known = account(tmp_path / "out")
    assert known.lost == 0 and known.answers == 4
    assert in_batches or known.spent == true_cost(api.exchanges)


LONG = "a cow walks " * 4000
"""48,000 letters: a question about it may cost $0.11, more than the whole budget; one about a short caption $0.013."""


def ordered(count: int, *, long_at: int) -> list[str]:
    found = [f"thing {i}" for i in range(count)]
    found[long_at] = LONG
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("in_batches", "long_at"), [(False, 0), (False, 4), (True, 0)])
def test_a_caption_too_dear_for_the_whole_budget_leaves_it_to_the_others(
    long_at: int, in_batches: bool, api: ClaudeApi, tmp_path: Path
) -> None:
    api.context = 1_000_000
    source, out = spans(tmp_path, ordered(6, long_at=long_at)), tmp_path / "out"
    config = replace(CLAUDE, limits=replace(CLAUDE.limits, batch_clips=6))
    for _ in range(2):
        with pytest.raises(RunStopped, match=r"the clip \S+ is not decided: .* Raise `budget_usd`, or shorten"):
            build_inline(source, out, config, judge_budget=judge_budget("0.05", in_batches=in_batches))
        assert [row.position for row in ledger(out, config)] == [i for i in range(6) if i != long_at]
        assert {row.outcome for row in ledger(out, config)} == {"kept"}
        assert asked_of(api.exchanges, LONG) == []
        assert sum(len(batch.bodies) for batch in api.batches) + len(api.exchanges) == 2 * 5
    build_inline(source, out, config, judge_budget=judge_budget("1", in_batches=in_batches))
    assert outcomes(out) == [("kept", "")] * 6
    assert_conserved(out, config)


@pytest.mark.slow
def test_the_engine_goes_on_with_the_other_units(api: ClaudeApi, tmp_path: Path) -> None:
    api.context = 1_000_000
    source, out = spans(tmp_path, ordered(6, long_at=1)), tmp_path / "out"
    order = BuildRequest(str(source), str(out), CLAUDE, workers=1, judge_budget=judge_budget("0.05"))
    with pytest.raises(RunStopped, match="Raise `budget_usd`, or shorten"):
        build(order, BuildProgress())
    assert [row.position for row in ledger(out, CLAUDE)] == [i for i in range(6) if i != 1]


@pytest.mark.slow
def test_a_budget_that_no_question_fits_ends_the_asking(api: ClaudeApi, tmp_path: Path) -> None:
    source, out = spans(tmp_path, ordered(6, long_at=0)), tmp_path / "out"
    with pytest.raises(RunStopped, match="is used up"):
        build_inline(source, out, CLAUDE, judge_budget=judge_budget("0.01"))
    assert api.exchanges == [] and ledger(out, CLAUDE) == []
