"""What several tests of the curation ask: a Claude API on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.asking import loopback
from tests.claude_api import ClaudeApi


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    yield from loopback(monkeypatch)
