"""Captions too long for the model: each is the end of its own clip, and costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from curation.terms import Terms
from tests.asking import CLAUDE, account, asked_of, loopback, outcomes, spans, terms, true_cost
from tests.claude_api import ClaudeApi
from tests.support import assert_conserved, build_inline, ledger

CONTEXT = 20_000
SURELY = "a dog walks " * (6 * CONTEXT // 12)
"""Six bytes for each token of the context."""
PERHAPS = "a cat runs x" * (9 * CONTEXT // 2 // 12)
"""Of four and a half; the server counts one for each four."""


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    for api in loopback(monkeypatch):
        api.context = CONTEXT
        yield api


def terms_of_small_context(in_batches: bool = False) -> Terms:
    given = terms("1", in_batches=in_batches)
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
        build_inline(source, tmp_path / "out", config, retry=retry, terms=given)
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
