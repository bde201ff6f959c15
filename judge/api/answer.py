"""The answer to one question: its text and its cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from nextscene.common.text import MAX_NAME, MAX_TEXT_BYTES, identifier, readable_text, storable_text
from nextscene.judge.spending.prices import Price, Usage

Status = Literal["whole", "refused", "truncated"]
_STATUS: Mapping[str, Status] = {
    "refusal": "refused",
    "max_tokens": "truncated",
    "model_context_window_exceeded": "truncated",
}
_MAX_TOKENS = 10**9
_MAX_COST_RATIO = 4
"""An answer that costs more than this many times the worst case is counted as unreadable."""
_NAMES = ("stop_reason", "model_served", "message_id", "request_id")


class InvalidResponse(ValueError):
    """The response is not a readable message of this API; it may have been charged for."""


class NotFromModel(InvalidResponse):
    """The response is not from a model, but for example a login page or a proxy error. It was not charged for."""


@dataclass(frozen=True)
class Answer:
    """The answer to a paid call. Unknown text is "". `usd` is exact; `tries` counts the requests that were sent.

    All texts are sanitized, so that files can hold them, and `category` is a word to count by. `clip_id` is the clip
    that the answer was bought for; `alias` is another key to find it by. A `shared` answer was paid for by an equal
    question of another clip and costs nothing here.
    """

    key: str
    status: Status
    text: str
    stop_reason: str
    category: str
    explanation: str
    model_asked: str
    model_served: str
    message_id: str
    request_id: str
    batch_id: str
    usage: Usage
    usd: Decimal
    tries: int
    shared: bool = False
    clip_id: str = ""
    alias: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The keys to find the answer by."""
        return (self.key, self.alias) if self.alias else (self.key,)

    def is_same_call(self, other: Answer) -> bool:
        return (self.key, self.message_id) == (other.key, other.message_id)

    @staticmethod
    def from_message(
        key: str,
        message: Mapping[str, Any],
        price: Price,
        *,
        worst: Decimal | None = None,
        request_id: str = "",
        batch_id: str = "",
        tries: int = 1,
    ) -> Answer:
        """Return the answer in a message of the API, priced as the model that served it.

        Raise InvalidResponse, also for implausible usage: negative, or costing far more than `worst`, in US dollars,
        the worst case of the request.
        """
        try:
            text = "".join(block["text"] for block in message["content"] if block["type"] == "text")
            reason = message["stop_reason"]
            details = message.get("stop_details") or {}
            usage, served = _usage(message["usage"]), str(message["model"])
            if worst is not None and price.cost(usage, in_batch=bool(batch_id)) > _MAX_COST_RATIO * worst:
                raise ValueError(f"it counts {usage.prompt_tokens:,} and {usage.output_tokens:,} tokens")
            return Answer(
                key=key,
                status=_STATUS.get(reason, "whole"),
                text=text,
                stop_reason=reason,
                category=details.get("category") or "",
                explanation=details.get("explanation") or "",
                model_asked=price.model,
                model_served=served,
                message_id=str(message["id"]),
                request_id=request_id,
                batch_id=batch_id,
                usage=usage,
                usd=price.served_by(served).cost(usage, in_batch=bool(batch_id)),
                tries=tries,
            )._sanitized()
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InvalidResponse(f"what came back is not a message: {error!r}") from error

    def to_line(self) -> bytes:
        """Return one line of JSON with its newline."""
        value = asdict(self) | {"usd": str(self.usd)}
        return json.dumps(value, separators=(",", ":")).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> Answer:
        """Return the answer of a line. Raise ValueError, KeyError or TypeError for an invalid line."""
        value = json.loads(line)
        return Answer(**{**value, "usage": Usage(**value["usage"]), "usd": Decimal(value["usd"])})._sanitized()

    def _sanitized(self) -> Answer:
        """Return the answer with storable texts. A text that is too long is dropped, as `explanation` says."""
        text, explanation = storable_text(self.text), readable_text(str(self.explanation or ""))
        if (size := len(text.encode())) > MAX_TEXT_BYTES:
            text, explanation = "", f"an answer of {size:,} bytes, {MAX_TEXT_BYTES:,} are the most"
        names: dict[str, Any] = {name: readable_text(str(getattr(self, name) or ""), MAX_NAME) for name in _NAMES}
        return replace(self, text=text, explanation=explanation, category=identifier(str(self.category or "")), **names)


def _usage(value: Mapping[str, Any]) -> Usage:
    written = _count(value.get("cache_creation_input_tokens") or 0)
    hour = _count((value.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0)
    return Usage(
        input_tokens=_count(value["input_tokens"]),
        output_tokens=_count(value["output_tokens"]),
        cache_read=_count(value.get("cache_read_input_tokens") or 0),
        cache_write_5m=max(0, written - hour),
        cache_write_1h=hour,
        thinking_tokens=_count((value.get("output_tokens_details") or {}).get("thinking_tokens") or 0),
    )


def _count(value: Any) -> int:
    """Return a number of tokens. Raise ValueError for an implausible one, or TypeError."""
    if not 0 <= (count := int(value)) <= _MAX_TOKENS:
        raise ValueError("it counts so many tokens as no answer has")
    return count
