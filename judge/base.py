"""What every judge is: it describes the scene before a clip, and says whether a description and a caption agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from nextscene.judge.api.answer import Answer
from nextscene.judge.api.request import Frame, Task


@dataclass(frozen=True)
class Question:
    """What a judge is told of a clip. Text that is not known is "".

    The lower its `priority`, the sooner it is asked about; `attempt` tells apart the times that it is asked about anew
    on purpose. `frames` are there where the caption is not; an answer that an earlier release bought for
    `earlier_frames` counts for them. `content` stands for the clip's bytes: a caption bought for the same content stays
    the clip's, even if the frames are taken otherwise. "" is none.
    """

    clip_id: str
    caption: str
    preceding_caption: str = ""
    frames: tuple[Frame, ...] = ()
    priority: int = 0
    attempt: int = 0
    earlier_frames: tuple[Frame, ...] = ()
    content: str = ""


@dataclass(frozen=True)
class Call:
    """A paid call: what was asked, by which template, and what came back."""

    task: Task
    prompt: str
    prompt_sha256: str
    answer: Answer

    def record(self) -> dict[str, Any]:
        """Its provenance and its cost as flat JSON, without the text."""
        answer = asdict(self.answer)
        usage: dict[str, Any] = answer.pop("usage")
        del answer["text"], answer["explanation"]
        asked: dict[str, Any] = {"task": self.task, "prompt": self.prompt, "prompt_sha256": self.prompt_sha256}
        return asked | answer | usage | {"usd": str(self.answer.usd)}


Calls = tuple[Call, ...]


@dataclass(frozen=True)
class JudgeText:
    """A text, and the calls that it took."""

    text: str
    calls: Calls = ()


@dataclass(frozen=True)
class Verdict:
    """A verdict on one description, with the reason in words and numbers, by `model`."""

    verdict: Literal["Pass", "Fail"]
    reason: str
    model: str
    calls: Calls = ()


class NoVerdict(Exception):
    """There is no answer for this clip: `outcome` and `reason` are what the ledger says of it."""

    def __init__(
        self, outcome: Literal["rejected", "refused", "failed"], reason: str, detail: str, calls: Calls = ()
    ) -> None:
        super().__init__(outcome, reason, detail, calls)
        self.outcome = outcome
        self.reason = reason
        self.detail = detail
        self.calls = calls


class Judge(Protocol):
    """All questions may take seconds or hours, and many clips may be asked about at once. All raise Declined."""

    name: str
    rounds: int
    """How often a clip may be described anew after a Fail, the first time included."""
    prompt_sha256: str
    """Of the template that asks for a description; "" where no prompt is used."""

    async def caption(self, question: Question) -> JudgeText:
        """What a clip shows that came without a caption."""
        ...

    async def describe(self, question: Question, rejected_scenes: tuple[str, ...] = ()) -> JudgeText:
        """The scene just before the clip, unlike those `rejected_scenes`."""
        ...

    async def verify(self, question: Question, scene: str) -> Verdict:
        """Whether the clip's caption is something new that follows from `scene`."""
        ...
