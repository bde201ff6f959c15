"""Helpers of the tests of the judge: messages, answers, files in memory, and simulated time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar
from unittest import mock

from nextscene.judge.api.answer import Answer
from nextscene.judge.spending.prices import Price, Prices, Usage

T = TypeVar("T")

SONNET = "claude-sonnet-5-5"


def price(model: str = SONNET) -> Price:
    return Prices.load().for_model(model)


def message(text: str = "A dog barks.", **changes: Any) -> dict[str, Any]:
    """A message as the API sends it."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": SONNET,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 100, "output_tokens": 10},
        **changes,
    }


def answer(key: str, text: str = "A dog barks.", **changes: Any) -> Answer:
    return Answer.from_message(key, message(text, **changes), price())


REFUSAL: dict[str, Any] = {
    "content": [],
    "stop_reason": "refusal",
    "stop_details": {"type": "refusal", "category": "cyber", "explanation": "It will not."},
}
TOKENS = Usage(100, 10)
USD = Decimal("0.0003")
"""The cost of `TOKENS` at $2 and $10 per million."""


@dataclass(frozen=True)
class Entry:
    path: str


class MemoryFiles:
    """Files that live as long as this object, each written whole or not at all; `full` lets every write fail."""

    def __init__(self, data: dict[str, bytes] | None = None) -> None:
        self.data = dict(data or {})
        self.full = False
        self.writes = 0
        self.deletions = 0

    def read(self, path: str) -> bytes:
        try:
            return self.data[path]
        except KeyError as error:
            raise FileNotFoundError(path) from error

    def write(self, path: str, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.writes += 1
        self.data[path] = data

    def delete(self, path: str) -> None:
        self.deletions += 1
        self.data.pop(path, None)

    def files(self, folder: str, recursive: bool = False) -> list[Entry]:
        inside = [path for path in sorted(self.data) if path.startswith(f"{folder}/")]
        return [Entry(path) for path in inside if recursive or path.rpartition("/")[0] == folder]


def without_threads() -> AbstractContextManager[object]:
    """Run the work of threads at once, with a chance for other tasks before and after."""

    async def inline(work: Callable[..., T], /, *args: Any) -> T:
        await asyncio.sleep(0)
        result = work(*args)
        await asyncio.sleep(0)
        return result

    return mock.patch("asyncio.to_thread", inline)


async def until_quiet() -> None:
    """Run every task that waits for no timer and no thread."""
    for _ in range(50):
        await asyncio.sleep(0)


class _Skipping(selectors.SelectSelector):
    """A selector that never waits: time jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and no timer will wake anyone")
        self.now += timeout + 1e-7  # what is due in less than a clock can tell must come due too
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


def in_no_time(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in simulated time, as `loop.time()` tells. A deadlock is an error at once."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
