"""Pass or Fail out of what a judge wrote, which is not always quite what it was asked for."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

Verdict = Literal["Pass", "Fail"]

SCHEMA: dict[str, Any] = {
    "type": "object",
    # In this order, so that the reason is thought of first.
    "properties": {"reason": {"type": "string"}, "verdict": {"type": "string", "enum": ["Pass", "Fail"]}},
    "required": ["reason", "verdict"],
    "additionalProperties": False,
}

_WORDS: dict[str, Verdict] = {"pass": "Pass", "fail": "Fail"}
_NAMED = re.compile(r"\b(?:verdict|label)\W{1,8}(pass|fail)\b", re.IGNORECASE)
_ALONE = re.compile(r"\W*(pass|fail)\W*", re.IGNORECASE)


def read_verdict(text: str) -> tuple[Verdict, str] | None:
    """Verdict and reason, None where there is no verdict or there are both.

    Takes JSON, also inside other text, then `verdict: …` in any case, then the bare word.
    """
    for value in _objects(text):
        verdict = _WORDS.get(str(value.get("verdict", "")).strip().strip("`.'\"").casefold())
        if verdict:
            return verdict, str(value.get("reason", "")).strip()
    words = {word.casefold() for word in _NAMED.findall(text)}
    if not words and (alone := _ALONE.fullmatch(text)):
        words = {alone[1].casefold()}
    if len(words) == 1:
        return _WORDS[words.pop()], ""
    return None


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a text, none inside another."""
    found, at = [], 0
    decoder = json.JSONDecoder()
    while (at := text.find("{", at)) >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if isinstance(value, dict):
            found.append(value)
        at = end
    return found
