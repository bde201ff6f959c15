"""The captions of the campaign of kills, and the server's rules for its retries."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.fakes.claude_api import Answer, AnswerRules, Question

CLIPS = 24


def captions() -> list[str]:
    """Return captions that need one to three rounds. Some clips are not kept, and some captions are equal."""
    return _of_kinds(["", "FAIL1", "FAIL2", "FAIL3", "REFUSE-VERIFY", "TRUNCATE-ONCE"])


def captions_to_retry() -> list[str]:
    """Return captions of which three in four end as `failed`.

    Of these three, one fails again in a retry; the others need one round and three rounds.
    """
    return _of_kinds(["", "TRUNCATE-ALWAYS", "BAD-REQUEST", "BAD-REQUEST FAIL2"])


def _of_kinds(kinds: list[str]) -> list[str]:
    made = [f"thing {i:02d} is seen {kinds[i % len(kinds)]}".strip() for i in range(CLIPS - 2)]
    return [*made, made[0], made[7]]


@dataclass(frozen=True, kw_only=True)
class Mended(AnswerRules):
    """Rules under which every request is valid."""

    def answer(self, question: Question) -> Answer:
        return super().answer(Question(json.loads(json.dumps(question.body).replace("BAD-REQUEST", ""))))
