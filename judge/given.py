"""The judge `given`: the scene before a clip is the one that the source gives with it, and nothing verifies it."""

from __future__ import annotations

from nextscene.judge.base import JudgeText, NoVerdict, Question
from nextscene.judge.judge_kind import JudgeKind


class GivenJudge:
    """A judge that takes the scenes of the source as they are."""

    name = "given"
    rounds = 1
    prompt_sha256 = ""

    async def caption(self, question: Question) -> JudgeText:
        """Raise NoVerdict: this judge cannot see."""
        raise NoVerdict("rejected", "no_caption", "the source gives no caption for it")

    async def describe(self, question: Question, rejected_scenes: tuple[str, ...] = ()) -> JudgeText:
        """Return the scene of the source, unchanged. Raise NoVerdict for a clip without one."""
        if not question.given_scene:
            raise NoVerdict("rejected", "no_scene", "the source gives no scene for it")
        return JudgeText(question.given_scene)

    async def verify(self, question: Question, scene: str) -> None:
        """Return None: whether the scene is any good is for whoever wrote it to say."""


GIVEN = JudgeKind(
    name="given",
    method="each scene was given by the source, written by people or by another tool; no judge wrote or verified it",
    open=lambda settings: GivenJudge(),
    heading="The source gave the scenes.",
    reads_scenes=True,
)
