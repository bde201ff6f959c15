"""Judges: they write the scene before a clip, and verify that it leads to the clip's caption.

    from nextscene.judge import ClaudeJudge, Question

    async with ClaudeJudge.open("answers", budget_usd=1) as judge:
        scene = await judge.describe(Question("clip-1", caption="A dog shakes water off its fur."))

Names are imported when they are first used; the SDK of the API is loaded by `ClaudeJudge.open`. The package loads
neither ray nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextscene.common.lazy_exports import lazy_exports

if __name__ != "nextscene.judge":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.judge")

if TYPE_CHECKING:
    from nextscene.judge.base import Judge, JudgeText, NoVerdict, Question, Verdict
    from nextscene.judge.claude import ClaudeJudge
    from nextscene.judge.film import FilmJudge

__all__ = ["ClaudeJudge", "FilmJudge", "Judge", "JudgeText", "NoVerdict", "Question", "Verdict"]

_MODULE_OF = {
    "ClaudeJudge": "claude",
    "FilmJudge": "film",
    "Judge": "base",
    "JudgeText": "base",
    "NoVerdict": "base",
    "Question": "base",
    "Verdict": "base",
}

__getattr__, __dir__ = lazy_exports(__name__, _MODULE_OF)
