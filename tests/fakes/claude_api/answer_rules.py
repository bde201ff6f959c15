"""The rules of the answers: the same question always gets the same answer.

One of these words in a caption changes what happens to its clip:

| marker           | request  | what happens                                                                  |
|------------------|----------|-------------------------------------------------------------------------------|
| FAIL1            | verify   | the scene of attempt 1 fails, every later one passes                          |
| FAIL2            | verify   | the scenes of attempts 1 and 2 fail, every later one passes                   |
| FAIL3            | verify   | every scene fails                                                             |
| REFUSE-DESCRIBE  | describe | stop_reason "refusal", no content                                             |
| REFUSE-VERIFY    | verify   | stop_reason "refusal", no content                                             |
| TRUNCATE-ONCE    | describe | with max_tokens <= 1024: half of the text, stop_reason "max_tokens"           |
| TRUNCATE-ALWAYS  | describe | half of the text, stop_reason "max_tokens", whatever max_tokens is            |
| SHOUT            | verify   | the verdict in the wrong case: "PASS" or "fAIL"                               |
| FENCED           | verify   | the verdict's JSON in a fence, with prose around it                           |
| GARBLED          | verify   | a text without a verdict                                                      |
| EMPTY            | describe | an empty text                                                                 |
| BAD-REQUEST      | both     | 400 invalid_request_error                                                     |
| ALWAYS-500       | both     | 500 api_error                                                                 |
| THINKS           | both     | a thinking block comes before the text                                        |
| DEARER           | both     | the answer says that claude-opus-5-5 gave it                                  |

The rules for `verify` also apply to template 10.1, which judges a video made from the scene. `marked` is the share of
the captions made here that end with each marker; those with REFUSE-CAPTION are refused.

The number of an attempt is one more than the number of rejected scenes, which a describe request lists on lines that
begin with "- ". The scene contains it as "(attempt N)", so a verdict depends only on the question, and not on how often
it is asked.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.claude_api import images
from tests.fakes.claude_api.errors import ServerError
from tests.fakes.claude_api.question import Question

# 256 pseudo-words, one for each value of a byte of a hash.
_SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe ri so tu va".split()
_WORDS = [first + second for first, second in itertools.product(_SYLLABLES, repeat=2)]

_SHOWN = re.compile(r"The video shows: (.*?)\nDescription:", re.DOTALL)
_JUDGED = re.compile(r".*Scene Description: (.*?)\nCaption: (.*?)(?:\nOutput:\nVerdict: Pass / Fail)?\Z", re.DOTALL)
_ATTEMPT = re.compile(r"\(attempt (\d+)\)")
_TURNED_DOWN = re.compile(r"^- ", re.MULTILINE)
_FAILS = {"FAIL1": 1, "FAIL2": 2, "FAIL3": math.inf}
_ROOMY = 1024


@dataclass(frozen=True)
class Answer:
    """A text, or a refusal (`text` None)."""

    text: str | None
    stop_reason: str = "end_turn"
    thinking: bool = False


@dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """The rules of one server.

    `scene_words` is the mean length of a scene, `pass_rate` the share of (scene, caption) pairs that pass, and `marked`
    the share of the captions made here that get each marker.
    """

    seed: int = 0
    scene_words: int = 12
    pass_rate: float = 1.0
    chars_per_token: float = 4
    thinking_tokens: int = 0
    marked: Mapping[str, float] = field(default_factory=dict)

    def answer(self, question: Question) -> Answer:
        """Return the answer. Raise ServerError for a question that gets none."""
        text = question.text
        if "Predict the most likely prior event" in text:
            shown = _SHOWN.search(text)
            return self.describe(question, shown[1] if shown else "")
        if "semantically redundant" in text and (judged := _JUDGED.match(text)):
            return self.verify(question, judged[1], judged[2])
        return self.caption(question) if question.images else self.other(question)

    def describe(self, question: Question, caption: str) -> Answer:
        _fail_if_marked(caption)
        if "REFUSE-DESCRIBE" in caption:
            return Answer(None, "refusal")
        if "EMPTY" in caption:
            return Answer("")
        attempt = 1 + len(_TURNED_DOWN.findall(question.text))
        scene = f"Earlier, {self._words(question)}. (attempt {attempt})"
        cramped = "TRUNCATE-ONCE" in caption and question.body.get("max_tokens", 0) <= _ROOMY
        if cramped or "TRUNCATE-ALWAYS" in caption:
            return Answer(scene[: len(scene) // 2], "max_tokens", "THINKS" in caption)
        return Answer(scene, thinking="THINKS" in caption)

    def verify(self, question: Question, scene: str, caption: str) -> Answer:
        _fail_if_marked(caption)
        if "REFUSE-VERIFY" in caption:
            return Answer(None, "refusal")
        if "GARBLED" in caption:
            return Answer("Let me begin by comparing the two texts. The first one")
        passes = self.passes(scene, caption)
        reason = "The caption shows a later moment." if passes else "The caption tells of the same moment."
        verdict = "Pass" if passes else "Fail"
        if "SHOUT" in caption:
            verdict = "PASS" if passes else "fAIL"
        text = f"{reason}\nVerdict: {verdict}"
        if question.structured or "FENCED" in caption:
            text = json.dumps({"reason": reason, "verdict": verdict})
        if "FENCED" in caption:
            text = f"Here is what I found.\n```json\n{text}\n```\nI hope this helps."
        return Answer(text, thinking="THINKS" in caption)

    def passes(self, scene: str, caption: str) -> bool:
        for marker, failing in _FAILS.items():
            if marker in caption:
                attempt = _ATTEMPT.search(scene)
                return int(attempt[1] if attempt else 1) > failing
        return self._fraction(f"{scene}\0{caption}") < self.pass_rate

    def caption(self, question: Question) -> Answer:
        pixels = hashlib.sha256(b"".join(question.images)).hexdigest()[:12]
        caption = f"A clip with {len(question.images)} frames, {pixels}."
        left = self._fraction(caption)
        for marker, share in self.marked.items():
            if left < share:
                return Answer(None, "refusal") if marker == "REFUSE-CAPTION" else Answer(f"{caption} {marker}")
            left -= share
        return Answer(caption)

    def other(self, question: Question) -> Answer:
        return Answer(f"I was asked {self._words(question)}.")

    def input_tokens(self, question: Question) -> int:
        patches = 0
        for image in question.images:
            width, height = images.size(image)
            patches += math.ceil(width / 28) * math.ceil(height / 28)
        return math.ceil(question.characters / self.chars_per_token) + patches

    def usage(self, question: Question, answer: Answer, tier: str) -> dict[str, Any]:
        return {
            "input_tokens": self.input_tokens(question),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": math.ceil(len(answer.text or "") / self.chars_per_token) + self.thinking_tokens,
            "output_tokens_details": {"thinking_tokens": self.thinking_tokens},
            "server_tool_use": None,
            "service_tier": tier,
        }

    def message(self, question: Question, *, message_id: str, tier: str) -> dict[str, Any]:
        """Return the JSON of a Message. Raise ServerError for a question that gets no answer."""
        answer = self.answer(question)
        return {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": "claude-opus-5-5" if "DEARER" in question.text else question.body["model"],
            "content": _content(answer),
            "stop_reason": answer.stop_reason,
            "stop_sequence": None,
            "stop_details": _REFUSAL if answer.text is None else None,
            "usage": self.usage(question, answer, tier),
        }

    def _fraction(self, text: str) -> float:
        """Return a number in [0, 1), a hash of the text and the seed."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}\0{text}".encode()).digest()[:6], "big") / (1 << 48)

    def _words(self, question: Question) -> str:
        """Return so many words that scenes have `scene_words` on average, with "Earlier" and "(attempt N)"."""
        lot = hashlib.shake_256(f"{self.seed}\0{question.system}\0{question.text}".encode())
        mean = max(6, self.scene_words - 3)
        spread = mean // 3
        count = mean - spread + lot.digest(1)[0] % (2 * spread + 1)
        return " ".join(_WORDS[byte] for byte in lot.digest(1 + count)[1:])


def _fail_if_marked(caption: str) -> None:
    if "BAD-REQUEST" in caption:
        raise ServerError(400, "messages: this caption makes the request invalid")
    if "ALWAYS-500" in caption:
        raise ServerError(500, "Internal server error")


_REFUSAL = {
    "type": "refusal",
    "category": "frontier_llm",
    "explanation": "This request could assist the development of competing models.",
}


def _content(answer: Answer) -> list[dict[str, Any]]:
    if answer.text is None:
        return []
    text = {"type": "text", "text": answer.text, "citations": None}
    thought = {"type": "thinking", "thinking": "What came before this?", "signature": "x"}
    return [thought, text] if answer.thinking else [text]
