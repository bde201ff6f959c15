"""One request body, parsed: its texts, its images, and the digest that identifies it."""

from __future__ import annotations

import binascii
import hashlib
import json
from functools import cached_property
from typing import Any

from tests.fakes.claude_api.errors import ServerError


def digest(body: dict[str, Any]) -> str:
    """Return the sha256 of the canonical JSON of a body, in hex: equal for a message and the same params in a batch."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return list(content or ())


def _texts(content: Any) -> list[str]:
    return [block["text"] for block in _blocks(content) if block["type"] == "text"]


class Question:
    # Each part is parsed on first use: a benchmark should not spend time on unused parts.

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body

    @cached_property
    def digest(self) -> str:
        return digest(self.body)

    @cached_property
    def system(self) -> str:
        return "\n".join(_texts(self.body.get("system")))

    @cached_property
    def text(self) -> str:
        """The text blocks of the user's turns, joined by line breaks."""
        turns = [turn["content"] for turn in self.body["messages"] if turn["role"] == "user"]
        return "\n".join(text for content in turns for text in _texts(content))

    @cached_property
    def images(self) -> list[bytes]:
        contents = [turn["content"] for turn in self.body["messages"]]
        sources = [block["source"] for content in contents for block in _blocks(content) if block["type"] == "image"]
        try:
            return [binascii.a2b_base64(source["data"]) for source in sources]
        except ValueError as error:
            raise ServerError(400, "messages: image.source.base64: invalid base64 data") from error

    @cached_property
    def characters(self) -> int:
        contents = [self.body.get("system"), *(turn["content"] for turn in self.body["messages"])]
        return sum(len(text) for content in contents for text in _texts(content))

    @property
    def structured(self) -> bool:
        return bool((self.body.get("output_config") or {}).get("format"))
