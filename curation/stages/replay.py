"""Replay of the questions about a clip from stored answers. Nothing is sent.

Tested in tests/judge/spending/test_estimate.py.
"""

from __future__ import annotations

from collections.abc import Callable

from nextscene.curation.config import BuildConfig
from nextscene.curation.plan import PlannedClip
from nextscene.curation.stages.describe import DescribedScene, describe_clips
from nextscene.judge.api.answer import Answer
from nextscene.judge.api.request import Frame, Request
from nextscene.judge.base import Call, Calls, Question
from nextscene.judge.spending.prices import Price

# A stored caption is found by the clip's content, so the real frames need not be decoded.
_NO_FRAMES = (Frame(0.0, 1, 1, b""),)


class _NotStored(Exception):
    """Raised at the first question without a stored answer."""


def content_of(clip: PlannedClip) -> str:
    """Return the plan's identifier for the bytes of a clip: size, time, offset and length."""
    return f"{clip.size}:{clip.mtime_ns}:{clip.offset}:{clip.length}"


class Replay:
    """The questions about one clip up to the first one without a stored answer.

    `calls` are those with a stored answer. `scene` is the clip's result if all questions have one, else None.
    """

    def __init__(
        self,
        look_up: Callable[[str], Answer | None],
        config: BuildConfig,
        price: Price,
        clip: PlannedClip,
        sample: int = 0,
    ) -> None:
        """Replay the questions. `look_up` returns the answer stored under a key.

        Raise JudgeStopped if a segment is damaged.
        """
        self._look_up = look_up
        self._calls: list[Call] = []
        frames = () if clip.caption else _NO_FRAMES
        question = Question(clip.clip_id, clip.caption, frames=frames, attempt=sample, content=content_of(clip))
        self.scene: DescribedScene | None = None
        try:
            judge = config.judge_kind.open(config.judge_settings, price, self)
            describe_clips(judge, question).send(None)  # it never waits, so one step runs it to its end
        except StopIteration as end:
            self.scene = end.value
        except _NotStored:
            return

    @property
    def calls(self) -> Calls:
        return tuple(self._calls)

    def count(self, task: str) -> int:
        return sum(call.task == task for call in self._calls)

    async def ask(self, request: Request, priority: int, clip_id: str) -> Answer:
        """Return the stored answer to a request. Raise _NotStored if there is none."""
        answer = self._look_up(request.key) or (self._look_up(request.alias) if request.alias else None)
        if answer is None:
            raise _NotStored
        self._calls.append(Call(request.task, request.prompt, request.prompt_sha256, answer))
        return answer

    async def has_answer(self, request: Request) -> bool:
        return self._look_up(request.key) is not None
