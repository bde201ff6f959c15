"""A request as it is sent, and the key under which its answer is stored."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

Task = Literal["caption", "describe", "verify", "consistency"]

PATCH = 28
"""The side of the square of pixels that an image token covers."""

# The API may add instructions for the output format to a prompt.
_ADDED_TOKENS = 500
# Prose has about 4. Only repetitive text has more than 5, which is not a caption.
_MAX_BYTES_PER_TOKEN = 5
_ORDINARY_CHARS = 8000


@dataclass(frozen=True)
class Frame:
    """A picture of a clip, `seconds` after the begin of the clip."""

    seconds: float
    width: int
    height: int
    jpeg: bytes

    @property
    def tokens(self) -> int:
        return math.ceil(self.width / PATCH) * math.ceil(self.height / PATCH)


@dataclass(frozen=True)
class Request:
    """One question to the model. Requests with the same key are the same question.

    `attempt` counts retries of the run and `repeat` retries after an unreadable answer, so that each has a key of its
    own. `prompt` and its sha256 name the template, whose words are in `text`; the key is made from the text.
    `subject` identifies the bytes that the frames were taken from, "" if there are no frames: see `alias`.
    """

    task: Task
    prompt: str
    prompt_sha256: str
    model: str
    effort: str
    max_tokens: int
    system: str
    text: str
    frames: tuple[Frame, ...] = ()
    schema: dict[str, Any] | None = None
    attempt: int = 0
    repeat: int = 0
    subject: str = ""

    @cached_property
    def body(self) -> dict[str, Any]:
        """The whole body of POST /v1/messages."""
        return self._body([base64.b64encode(frame.jpeg).decode() for frame in self.frames])

    @cached_property
    def key(self) -> str:
        """sha256 in hexadecimal digits of the body, with each image replaced by its sha256, `attempt` and `repeat`."""
        body = self._body([hashlib.sha256(frame.jpeg).hexdigest() for frame in self.frames])
        return _digest([body, self.attempt, self.repeat])

    @cached_property
    def alias(self) -> str:
        """Another key: of the same question about the same subject, whatever its frames; "" without a subject."""
        if not self.subject:
            return ""
        return _digest([self.subject, replace(self, frames=()).body, self.attempt, self.repeat])

    @property
    def with_ordinary_length(self) -> Request:
        """The request, with its text truncated to the length that nearly all questions have."""
        return replace(self, text=self.text[:_ORDINARY_CHARS])

    @property
    def bytes(self) -> int:
        """The size of the body on the wire: never more than this."""
        return len(json.dumps(self.body))

    @property
    def max_input_tokens(self) -> int:
        """An upper bound of the tokens of the prompt: no token is shorter than a byte."""
        schema = len(json.dumps(self.schema)) if self.schema else 0
        pictures = sum(frame.tokens + len(_time(frame)) for frame in self.frames)
        return self._written + schema + pictures + _ADDED_TOKENS

    @property
    def min_input_tokens(self) -> int:
        """A lower bound of the tokens of the prompt, if its text is prose."""
        return self._written // _MAX_BYTES_PER_TOKEN + sum(frame.tokens for frame in self.frames)

    @property
    def _written(self) -> int:
        return len((self.system + self.text).encode())

    def _body(self, images: list[str]) -> dict[str, Any]:
        output: dict[str, Any] = {"effort": self.effort} if self.effort else {}
        if self.schema is not None:
            output["format"] = {"type": "json_schema", "schema": self.schema}
        return {
            "model": self.model,
            "max_tokens": self.max_tokens,
            **({"system": self.system} if self.system else {}),
            "messages": [{"role": "user", "content": self._content(images)}],
            **({"output_config": output} if output else {}),
        }

    def _content(self, images: list[str]) -> str | list[dict[str, Any]]:
        if not images:
            return self.text
        content: list[dict[str, Any]] = []
        for frame, data in zip(self.frames, images, strict=True):
            content.append({"type": "text", "text": _time(frame)})
            source = {"type": "base64", "media_type": "image/jpeg", "data": data}
            content.append({"type": "image", "source": source})
        return [*content, {"type": "text", "text": self.text}]


def _digest(value: list[Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _time(frame: Frame) -> str:
    return f"{frame.seconds:.2f} s:"
