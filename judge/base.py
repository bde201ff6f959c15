"""The interface of judges: describe the scene before a clip, and verify it against the caption.

Tested in tests/judge/test_claude.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any, Literal, Protocol

from nextscene.judge.api.answer import Answer
from nextscene.judge.api.request import Frame, Task


@dataclass(frozen=True)
class Question:
    """The facts about a clip that a judge answers from. Unknown text is "".

    The lowest `priority` is answered first. `attempt` counts deliberate retries, each of which is a new question.
    `frames` are given if there is no caption; an answer that an earlier release bought for `earlier_frames` counts for
    them. `given_scene` is the source's, for a judge that reads those. `content` identifies the bytes of the clip, "" if
    unknown: a caption bought for the same content is used again, even if the frames are taken differently.
    """

    clip_id: str
    caption: str
    preceding_caption: str = ""
    frames: tuple[Frame, ...] = ()
    priority: int = 0
    attempt: int = 0
    earlier_frames: tuple[Frame, ...] = ()
    content: str = ""
    given_scene: str = ""


@dataclass(frozen=True)
class Call:
    """A paid call: the task, the template of its prompt, and the answer."""

    task: Task
    prompt: str
    prompt_sha256: str
    answer: Answer

    def record(self) -> dict[str, Any]:
        """Return the provenance and the cost as flat JSON, without the text."""
        answer = asdict(self.answer)
        usage: dict[str, Any] = answer.pop("usage")
        del answer["text"], answer["explanation"]
        request: dict[str, Any] = {"task": self.task, "prompt": self.prompt, "prompt_sha256": self.prompt_sha256}
        return request | answer | usage | {"usd": str(self.answer.usd)}


Calls = tuple[Call, ...]


def charge_once(calls: Calls, charged: set[str], clip_id: str | None = None) -> Calls:
    """Return the calls, as shared and without cost where the answer is charged elsewhere.

    That is where its key is in `charged`, to which the keys of all others are added; with a `clip_id`, also where the
    answer was bought for another clip.
    """

    def counted(call: Call) -> Call:
        answer = call.answer
        if answer.key in charged or (clip_id is not None and answer.clip_id not in ("", clip_id)):
            return replace(call, answer=replace(answer, usd=Decimal(0), shared=True))
        charged.add(answer.key)
        return call

    return tuple(map(counted, calls))


@dataclass(frozen=True)
class JudgeText:
    """A text, and the calls that were made for it."""

    text: str
    calls: Calls = ()


@dataclass(frozen=True)
class Verdict:
    """The verdict on one description, with a reason in words and numbers, by `model`."""

    verdict: Literal["Pass", "Fail"]
    reason: str
    model: str
    calls: Calls = ()


class NoVerdict(Exception):
    """The judge has no answer for this clip. `outcome` and `reason` go into the ledger."""

    def __init__(
        self, outcome: Literal["rejected", "refused", "failed"], reason: str, detail: str, calls: Calls = ()
    ) -> None:
        super().__init__(outcome, reason, detail, calls)
        self.outcome = outcome
        self.reason = reason
        self.detail = detail
        self.calls = calls


class Judge(Protocol):
    """The interface of a judge. Methods may take hours, may run concurrently, and raise NoVerdict for a clip without
    answer.
    """

    name: str
    rounds: int
    """The maximal number of descriptions of one clip: the first one, and one after each Fail."""
    prompt_sha256: str
    """sha256 of the template that asks for a description; "" if no prompt is used."""

    async def caption(self, question: Question) -> JudgeText:
        """Return a caption for a clip that came without one."""
        ...

    async def describe(self, question: Question, rejected_scenes: tuple[str, ...] = ()) -> JudgeText:
        """Return the scene just before the clip, unlike the `rejected_scenes`."""
        ...

    async def verify(self, question: Question, scene: str) -> Verdict | None:
        """Return whether the caption is new content that follows from `scene`; None if the judge verifies no scenes."""
        ...
