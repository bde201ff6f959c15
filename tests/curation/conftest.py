"""What several tests of the curation ask: a Claude API on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import loopback


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    yield from loopback(monkeypatch)
