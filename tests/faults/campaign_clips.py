"""The captions of the campaign of kills, and the server that a retry of it meets."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.fakes.claude_api import Answer, AnswerRules, Question

CLIPS = 24


def captions() -> list[str]:
    """Each takes one to three rounds; some end in vain; some are the same."""
    return _of_kinds(["", "FAIL1", "FAIL2", "FAIL3", "REFUSE-VERIFY", "TRUNCATE-ONCE"])


def captions_to_retry() -> list[str]:
    """Three of four end as `failed`; the retry of one of those is in vain, the others take one round or three."""
    return _of_kinds(["", "TRUNCATE-ALWAYS", "BAD-REQUEST", "BAD-REQUEST FAIL2"])


def _of_kinds(kinds: list[str]) -> list[str]:
    made = [f"thing {i:02d} is seen {kinds[i % len(kinds)]}".strip() for i in range(CLIPS - 2)]
    return [*made, made[0], made[7]]


@dataclass(frozen=True, kw_only=True)
class Mended(AnswerRules):
    """Takes every request for a valid one."""

    def answer(self, question: Question) -> Answer:
        return super().answer(Question(json.loads(json.dumps(question.body).replace("BAD-REQUEST", ""))))
