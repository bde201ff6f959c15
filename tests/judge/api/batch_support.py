"""Helpers of the tests of batches."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from anthropic import Anthropic

from nextscene.judge.api.request import Request
from tests.fakes.claude_api import ClaudeApi
from tests.judge.api_support import (
    RETRY_POLICY,
    account,
    batch_cost,
    captions,
    describe,
    interactive_cost,
    open_batches,
    paid_for,
)

APPEARS_AT_ONCE = replace(RETRY_POLICY, batch_appear_hours=0.0)


def questions(count: int) -> list[Request]:
    return [describe(caption) for caption in captions(count)]


def other_program(api: ClaudeApi, requests: list[Request]) -> str:
    """A batch that somebody else makes with the same account."""
    items: Any = [{"custom_id": request.key, "params": request.body} for request in requests]
    with Anthropic() as claude:
        return claude.messages.batches.create(requests=items).id


def assert_settled(out: Path, api: ClaudeApi) -> None:
    """Everything that was made in batches is stored, paid for at half price, and counted once."""
    assert account(out).spent == batch_cost(api) + interactive_cost(api) == sum(paid_for(out).values())
    assert account(out).answers == len(paid_for(out))
    assert open_batches(out) == []


def lot(custom_id: str) -> int:
    return hashlib.sha256(custom_id.encode()).digest()[0]
