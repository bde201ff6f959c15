"""The API on loopback that the judge's tests ask, without the waits that only make a test slow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.claude_api import AnswerRules, ClaudeApi, Limits
from tests.judge import api_support


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    api_support.hurry(monkeypatch)


@pytest.fixture
def rules() -> AnswerRules:
    """The rules of the answers; a test file that needs others has a fixture of this name."""
    return AnswerRules()


@pytest.fixture
def limits() -> Limits:
    """The limits of the API; a test file that needs others has a fixture of this name."""
    return Limits()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, rules: AnswerRules, limits: Limits) -> Iterator[ClaudeApi]:
    with ClaudeApi(rules=rules, limits=limits) as api:
        api_support.reach(monkeypatch, api)
        yield api
