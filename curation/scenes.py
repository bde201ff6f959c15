"""The rounds: describe the scene before a clip, verify it, and on a Fail ask for another."""

from __future__ import annotations

from dataclasses import dataclass

from curation.config import Config
from curation.outcome import Ending
from judge.base import Declined, Judge, Opinion, Question
from judge.film import FilmJudge


@dataclass(frozen=True)
class Scene:
    """What the judge made of a clip. Under `none`, and where the judge declined, there is no text and no verdict."""

    text: str = ""
    verdict: str = ""
    verdict_reason: str = ""
    rounds: int = 0
    judge_model: str = ""
    prompt_sha256: str = ""
    ending: Ending | None = None


def make_judge(config: Config) -> Judge | None:
    """The configured judge; None for `none`, under which the caption itself becomes the conditioning text."""
    return FilmJudge(config.film.max_overlap) if config.judge == "film" else None


async def decide(judge: Judge | None, question: Question) -> Scene:
    """Up to `judge.rounds` rounds for one clip. Ends with a Pass, with `dropped`, or with why the judge declined."""
    if not question.caption:
        return Scene(ending=Ending("rejected", "no_caption", "the source gives no caption for it"))
    if judge is None:
        return Scene()
    turned_down: list[str] = []
    opinion = Opinion("Fail", "")
    try:
        for _ in range(judge.rounds):
            scene = await judge.describe(question, tuple(turned_down))
            opinion = await judge.verify(scene, question.caption)
            if opinion.verdict == "Pass":
                rounds = len(turned_down) + 1
                return Scene(scene, "Pass", opinion.reason, rounds, judge.model, judge.prompt_sha256)
            turned_down.append(scene)
    except Declined as declined:
        ending = Ending(declined.outcome, declined.reason, declined.detail)
        return Scene(rounds=len(turned_down), judge_model=judge.model, ending=ending)
    ending = Ending("dropped", "no_pass", f"{judge.rounds} of {judge.rounds} rounds failed; last: {opinion.reason}")
    return Scene(turned_down[-1], "Fail", opinion.reason, judge.rounds, judge.model, judge.prompt_sha256, ending)
