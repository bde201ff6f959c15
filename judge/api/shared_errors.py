"""Errors that all questions share, such as an outage or a denied account, as opposed to the error of one question.

Tested in tests/judge/api/test_client.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import anthropic

from nextscene.judge.api.errors import ApiError, classify_exception
from nextscene.judge.errors import JudgeStopped

_HARMLESS = "A dog runs across a field."
_PROBE_SECONDS = 60.0
_COMMON = 20
"""This many questions in a row that fail for the same reason, without an answer between them, share the error."""
_CHANGING = re.compile(r"[0-9a-fA-F-]{6,}|\d+")
_WHAT = {"denied": "denies every question", "unreadable": "gives no answer that can be read"}


class SharedErrors:
    """A check of the errors of questions that are about to be given up. For one event loop.

    The error of one question is distinguished from that of the account or the network by counting the tokens of a
    harmless prompt, which is free.
    """

    def __init__(self, api: anthropic.AsyncAnthropic, model: str, redact: Callable[[str], str]) -> None:
        self._api = api
        self._model = model
        self._redact = redact
        self._reason = ""
        self._in_a_row: set[str] = set()
        self._probing = asyncio.Lock()
        self._probed_at = float("-inf")
        self._probed: ApiError | None = None

    def record_success(self) -> None:
        """Note that a question was answered."""
        self._in_a_row.clear()

    async def check(self, fault: ApiError, key: str) -> None:
        """Raise JudgeStopped if all questions would get this error."""
        # The message of an unreadable answer depends on where it ends.
        reason = fault.kind if fault.kind == "unreadable" else _CHANGING.sub("", fault.message)
        if reason != self._reason:
            self._reason = reason
            self._in_a_row.clear()
        self._in_a_row.add(key)
        if len(self._in_a_row) >= _COMMON:
            what = _WHAT.get(fault.kind, "answers no question")
            raise JudgeStopped(f"the API {what} (last: {fault.message}); see the model and its settings")
        if fault.kind not in ("item", "unreadable"):
            self._raise_if_common(fault, await self._harmless())

    def _raise_if_common(self, fault: ApiError, harmless: ApiError | None) -> None:
        """Raise JudgeStopped if `harmless`, the error of a harmless prompt, shows that the error is shared."""
        if harmless is None:
            return
        if harmless.kind == "stop":
            raise JudgeStopped(harmless.message)
        if fault.kind == harmless.kind == "denied":
            raise JudgeStopped(
                f"the API denies every question ({harmless.message}); see the account in the console, and run the same"
                " command again once it may ask"
            )
        if fault.kind != "denied" and harmless.kind in ("server", "lost", "busy", "pause"):
            raise JudgeStopped(f"the Claude API gives no answer (last: {harmless.message})")

    async def _harmless(self) -> ApiError | None:
        """Return the current error of a harmless prompt; None if it is accepted, or if tokens cannot be counted."""
        arrived = asyncio.get_running_loop().time()
        async with self._probing:
            if self._probed_at <= arrived:  # otherwise another question has probed since this one arrived
                self._probed_at = asyncio.get_running_loop().time()
                self._probed = await self.probe()
            return self._probed

    async def probe(self) -> ApiError | None:
        """Return the error of a harmless prompt, None if it is accepted."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._api.messages.count_tokens(
                    model=self._model, messages=[{"role": "user", "content": _HARMLESS}]
                )
            return None
        except Exception as error:  # noqa: BLE001
            return classify_exception(error, self._redact)
