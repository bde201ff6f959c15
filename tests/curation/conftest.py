"""What several tests of the curation ask: a Claude API on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.claude_api import ClaudeApi


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    monkeypatch.setattr("judge.store._LINGER_SECONDS", 0.02)
    with ClaudeApi() as api:
        for name, value in api.env.items():
            monkeypatch.setenv(name, value)
        yield api
