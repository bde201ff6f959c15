"""The API on loopback, without the waits that only make a test slow, and with what it answers to be changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.claude_api import ClaudeApi
from tests.judge import api_support


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    api_support.hurry(monkeypatch)
    with ClaudeApi() as api:
        api_support.reach(monkeypatch, api)
        yield api
