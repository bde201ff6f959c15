"""A finished call: what came back for one question, and what it cost."""

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
_BELIEVED = 4
"""So many times the worst case may be a prompt that was counted otherwise than here. More is a mistake."""
_NAMES = ("stop_reason", "model_served", "message_id", "request_id")


class InvalidResponse(ValueError):
    """What came back is not a message of this API that can be read; it may have been charged for."""


class NotFromModel(InvalidResponse):
    """What came back was made by no model: a login page, an answer of a proxy. It was not charged for."""


@dataclass(frozen=True)
class Answer:
    """What was paid for. Unknown text is "". `usd` is exact; `tries` counts the requests that it took.

    Whatever the API sent, each text can be written down, and `category` is a word to count by.
    `clip_id` is the clip that it was bought for; `alias` is another name to find it by. A `shared` answer was paid for
    by an equal question of another clip; here it cost nothing.
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
        """What it is found by."""
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
        """From a message as the API sends it. It costs what the model that gave it does.

        Raises InvalidResponse, also for usage that nobody can believe: negative, or far beyond `worst`, in US dollars,
        which an answer of the model that was asked can cost.
        """
        try:
            text = "".join(block["text"] for block in message["content"] if block["type"] == "text")
            reason = message["stop_reason"]
            details = message.get("stop_details") or {}
            usage, served = _usage(message["usage"]), str(message["model"])
            if worst is not None and price.cost(usage, in_batch=bool(batch_id)) > _BELIEVED * worst:
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
        """One line of JSON with its newline."""
        value = asdict(self) | {"usd": str(self.usd)}
        return json.dumps(value, separators=(",", ":")).encode() + b"\n"

    @staticmethod
    def from_line(line: bytes) -> Answer:
        """Raises ValueError, KeyError or TypeError for a line that is none."""
        value = json.loads(line)
        return Answer(**{**value, "usage": Usage(**value["usage"]), "usd": Decimal(value["usd"])})._sanitized()

    def _sanitized(self) -> Answer:
        """With texts that files can hold. One that is too long to be data is none, and `explanation` says so."""
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
    """A number of tokens. Raises ValueError for what no answer has, or TypeError."""
    if not 0 <= (count := int(value)) <= _MAX_TOKENS:
        raise ValueError("it counts so many tokens as no answer has")
    return count
