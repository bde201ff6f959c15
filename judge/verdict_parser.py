"""Parsing of verdicts: Pass or Fail from the text of a model, even if it does not follow the schema."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator
from typing import Any, Literal

from nextscene.common.text import readable_text

VerdictWord = Literal["Pass", "Fail"]

SCHEMA: dict[str, Any] = {
    "type": "object",
    # In this order, so that the reason is thought of first.
    "properties": {"reason": {"type": "string"}, "verdict": {"type": "string", "enum": ["Pass", "Fail"]}},
    "required": ["reason", "verdict"],
    "additionalProperties": False,
}

_WORDS: dict[str, VerdictWord] = {"pass": "Pass", "fail": "Fail"}
# Spelled out: ignoring case would also accept letters outside ASCII that fold to these.
_WORD = "(?:[Pp][Aa][Ss][Ss]|[Ff][Aa][Ii][Ll])"
# Does not match if the text only repeats the choice with which template 10.1 ends: "Verdict: Pass / Fail".
_NAMED = re.compile(rf"\b(?i:verdict|label)\W{{1,8}}({_WORD})\b(?!\W{{0,8}}(?:[/|]|\bor\b)\W{{0,8}}{_WORD}\b)")
_ALONE = re.compile(rf"\W*({_WORD})\W*")
_MAX_BRACES = 100
"""An answer has one object; trying each brace of a text full of braces would take hours."""


def parse_verdict(text: str) -> tuple[VerdictWord, str] | None:
    """Return verdict and reason, or None if there is no verdict or both.

    Accept JSON, also inside other text, else `verdict: …` in any case, else the bare word.
    """
    found = [
        (verdict, _reason(value.get("reason", "")))
        for value in _objects(text)
        if (verdict := _verdict(value.get("verdict")))
    ]
    if not found:
        words = _NAMED.findall(text)
        if not words and (alone := _ALONE.fullmatch(text)):
            words = [alone[1]]
        found = [(_WORDS[word.lower()], "") for word in words]
    return found[0] if len({verdict for verdict, _ in found}) == 1 else None


def _verdict(value: Any) -> VerdictWord | None:
    return _WORDS.get(value.strip().strip("`.'\"").lower()) if isinstance(value, str) else None


def _reason(value: Any) -> str:
    return readable_text(value.strip() if isinstance(value, str) else reprlib.repr(value))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text, none inside another. After invalid JSON, continue at the next brace."""
    at = 0
    decoder = json.JSONDecoder()
    for _ in range(_MAX_BRACES):
        if (at := text.find("{", at)) < 0:
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
        else:
            yield value
