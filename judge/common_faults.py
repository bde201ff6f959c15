"""Faults that one question meets: whether they are its own, or common to all, which ends the run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import anthropic

from judge.errors import JudgeStopped
from judge.faults import Fault, read_fault

_HARMLESS = "A dog runs across a field."
_COMMON = 20
"""So many questions in a row that fail for the same reason, with no answer between them, are not each at fault."""
_NUMBERS = re.compile(r"\d+")


class CommonFaults:
    """Of questions that are denied, or whose answers nobody can read. For one event loop.

    A denied one is told from a denied account by counting the tokens of a harmless prompt, which is free.
    """

    def __init__(self, api: anthropic.AsyncAnthropic, model: str, redact: Callable[[str], str]) -> None:
        self._api = api
        self._model = model
        self._redact = redact
        self._reason = ""
        self._in_a_row: set[str] = set()
        self._probing = asyncio.Lock()
        self._probed_at = float("-inf")
        self._verdict = ""

    def answered(self) -> None:
        """Some question was answered."""
        self._in_a_row.clear()

    async def check(self, fault: Fault, key: str) -> None:
        """Raise JudgeStopped where all questions would meet the fault that this one has met."""
        if fault.kind not in ("denied", "unreadable"):
            return
        if (reason := _NUMBERS.sub("", fault.said)) != self._reason:
            self._reason = reason
            self._in_a_row.clear()
        self._in_a_row.add(key)
        if len(self._in_a_row) >= _COMMON:
            what = "denies every question" if fault.kind == "denied" else "gives no answer that can be read"
            raise JudgeStopped(f"the API {what} (last: {fault.said}); see --model and the settings")
        if fault.kind == "denied":
            await self._check_account()

    async def _check_account(self) -> None:
        arrived = asyncio.get_running_loop().time()
        async with self._probing:
            if self._probed_at <= arrived:  # else another denial was looked into after this one had come
                self._probed_at = asyncio.get_running_loop().time()
                self._verdict = await self._probe()
            if self._verdict:
                raise JudgeStopped(self._verdict)

    async def _probe(self) -> str:
        """Why a harmless prompt is denied too; "" where it is not, or the address cannot say."""
        try:
            await self._api.messages.count_tokens(model=self._model, messages=[{"role": "user", "content": _HARMLESS}])
            return ""
        except Exception as error:  # noqa: BLE001
            fault = read_fault(error, self._redact)
        if fault.kind == "denied":
            return (
                f"the API denies every question ({fault.said}); see the account in the console, and go on with the same"
                " command once it may ask"
            )
        return fault.said if fault.kind == "stop" else ""
