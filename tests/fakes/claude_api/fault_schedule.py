"""Transient faults: the fault of the n-th arrival of a body depends only on (seed, digest, n)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.claude_api.errors import ForeignResponse, Hangup, ServerError

_USAGES: Mapping[str, Any] = {
    "no-usage": None,
    "negative-usage": {"input_tokens": -36_000_000, "output_tokens": -1},
    "huge-usage": {"input_tokens": 1_000_000_000, "output_tokens": 10},
}

FAULTS = {
    "429": "too many requests, without retry-after",
    "429-after": "too many requests, with retry-after",
    "529": "overloaded",
    "500": "an internal error",
    "503-after": "unavailable, with retry-after",
    "page": "a login page with status 200 in place of an answer, which is not made",
    "no-usage": "the answer is made (and paid), and says nothing of its tokens",
    "negative-usage": "the answer is made (and paid), and counts fewer tokens than none",
    "huge-usage": "the answer is made (and paid), and counts more tokens than it can have",
    "drop-before": "the connection is cut before an answer is made",
    "drop-after": "the answer is made (and paid), half of it is sent, then the connection is cut",
    "slow": "the answer trickles in",
}


@dataclass(frozen=True, kw_only=True)
class FaultSchedule:
    """A schedule of faults. `rates` is the share of arrivals with each fault; a body has at most `max_per_body`."""

    seed: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)
    max_per_body: int = 3
    retry_after: float = 0.2
    slow_seconds: float = 0.5

    def __post_init__(self) -> None:
        if unknown := self.rates.keys() - FAULTS.keys():
            raise ValueError(f"no such fault: {sorted(unknown)}")
        if sum(self.rates.values()) > 1:
            raise ValueError("the rates sum to more than 1")

    def fault(self, digest: str, arrival: int) -> str:
        """Return the fault of this arrival (1-based) of this body, "" if it has none."""
        fault = self._draw(digest, arrival)
        spent = fault and sum(self._draw(digest, earlier) != "" for earlier in range(1, arrival)) >= self.max_per_body
        return "" if spent else fault

    def raise_fault(self, fault: str) -> None:
        """Raise the error for a fault that replaces the answer. The other faults change how the answer is sent."""
        match fault:
            case "429":
                raise ServerError(429, "This request would exceed your rate limit.", cause=fault)
            case "429-after":
                message = "This request would exceed your rate limit."
                raise ServerError(429, message, retry_after=self.retry_after, cause=fault)
            case "529":
                raise ServerError(529, "Overloaded", cause=fault)
            case "500":
                raise ServerError(500, "Internal server error", cause=fault)
            case "503-after":
                raise ServerError(503, "The service is unavailable.", retry_after=self.retry_after, cause=fault)
            case "page":
                raise ForeignResponse(200, fault)
            case "drop-before":
                raise Hangup(fault)

    def sent_message(self, message: dict[str, Any], fault: str) -> dict[str, Any]:
        """Return the message as it is sent. Its usage may differ from the usage that is billed."""
        return message | {"usage": _USAGES[fault]} if fault in _USAGES else message

    def _draw(self, digest: str, arrival: int) -> str:
        lot = hashlib.sha256(f"{self.seed}:{digest}:{arrival}".encode()).digest()
        left = int.from_bytes(lot[:7], "big") / (1 << 56)
        for fault, rate in self.rates.items():
            left -= rate
            if left < 0:
                return fault
        return ""
