"""The rounds of a clip: describe the scene before it, verify the scene, and describe another one after a Fail.

Tested in tests/judge/test_claude.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nextscene.common.errors import RunStopped, UsageError
from nextscene.curation.outcome import UNDECIDED, ClipOutcome, Undecided
from nextscene.judge.base import Call, Judge, NoVerdict, Question

JUDGE_FAILURES = frozenset(["judge_error", "truncated", "unreadable_answer"])
"""Reasons for which a retry asks the judge again. `caption_too_long` is not among them: the judge was never asked."""


@dataclass(frozen=True)
class RejectedScene:
    """A description that did not pass, and the reason."""

    scene: str
    reason: str


@dataclass(frozen=True)
class DescribedScene:
    """The judge's result for a clip. Without a judge or without a scene, text and verdict are empty. If the judge
    verifies no scenes, there is a text without a verdict, after 0 rounds.

    `caption` is the clip's own, or the judge's if the clip had none. `calls` are all paid calls, in order.
    """

    caption: str = ""
    text: str = ""
    verdict: str = ""
    verdict_reason: str = ""
    rounds: int = 0
    judge_model: str = ""
    prompt_sha256: str = ""
    turned_down: tuple[RejectedScene, ...] = ()
    calls: tuple[Call, ...] = ()
    outcome: ClipOutcome | None = None


@dataclass(frozen=True)
class Decision:
    """The judge's decisions on a unit's clips: a scene, None for a clip that needs none, or UNDECIDED.

    `end` is the error that stopped the judge's work before all clips were decided.
    """

    scenes: list[DescribedScene | Undecided | None]
    end: RunStopped | UsageError | None = None

    @property
    def result(self) -> AskResult:
        return AskResult(
            self.end, UNDECIDED in self.scenes, any(isinstance(scene, DescribedScene) for scene in self.scenes)
        )


@dataclass(frozen=True)
class AskResult:
    """The end of the judge's work on a unit: its error, whether a clip is undecided, whether any clip has a scene."""

    end: RunStopped | UsageError | None = None
    is_partial: bool = False
    has_scenes: bool = True


async def describe_clips(judge: Judge | None, question: Question) -> DescribedScene:
    """Run up to `judge.rounds` rounds for one clip.

    Stop at a Pass, at a scene that the judge takes unverified, or if the judge has no answer.

    If all rounds fail, the outcome is `dropped`. If the judge has no answer, the outcome is the judge's reason.
    """
    if judge is None:
        outcome = (
            None if question.caption else ClipOutcome("rejected", "no_caption", "the source gives no caption for it")
        )
        return DescribedScene(question.caption, outcome=outcome)
    scene = DescribedScene(question.caption, prompt_sha256=judge.prompt_sha256)
    try:
        if not question.caption:
            said = await judge.caption(question)
            question = replace(question, caption=said.text)
            scene = replace(scene, caption=said.text, calls=said.calls)
        for _ in range(judge.rounds):
            scene = await _round(judge, question, scene)
            if scene.verdict != "Fail":
                return scene
    except NoVerdict as declined:
        return replace(
            scene,
            text="",
            verdict="",
            verdict_reason="",
            calls=scene.calls + declined.calls,
            outcome=ClipOutcome(declined.outcome, declined.reason, declined.detail),
        )
    said_of = f"{judge.rounds} of {judge.rounds} rounds failed; last: {scene.verdict_reason}"
    return replace(scene, outcome=ClipOutcome("dropped", "no_pass", said_of))


async def _round(judge: Judge, question: Question, scene: DescribedScene) -> DescribedScene:
    """Run one round: describe and verify a scene. Raise NoVerdict, with this round's calls."""
    said = await judge.describe(question, tuple(attempt.scene for attempt in scene.turned_down))
    try:
        opinion = await judge.verify(question, said.text)
    except NoVerdict as declined:
        declined.calls = said.calls + declined.calls
        raise
    if opinion is None:
        unverified = replace(scene, verdict="", verdict_reason="", judge_model="")
        return replace(unverified, text=said.text, calls=scene.calls + said.calls)
    failed = (RejectedScene(said.text, opinion.reason),) if opinion.verdict == "Fail" else ()
    return replace(
        scene,
        text=said.text,
        verdict=opinion.verdict,
        verdict_reason=opinion.reason,
        rounds=scene.rounds + 1,
        judge_model=opinion.model,
        turned_down=scene.turned_down + failed,
        calls=scene.calls + said.calls + opinion.calls,
    )
