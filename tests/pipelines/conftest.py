"""What several tests of the commands ask: a place to start in, a Claude API on loopback, and builds without Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.command import Place, place
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import loopback
from tests.fakes.without_ray import without_ray


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as here:
        yield here


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    yield from loopback(monkeypatch)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
