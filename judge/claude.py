"""The judge `claude`: prompts of the paper, sent to a language model (arXiv 2512.13015, supplement, 10.1 and 11.1)."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Protocol, TypeVar

from nextscene.common.local_state import local_state
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage
from nextscene.judge.api.answer import Answer
from nextscene.judge.api.api_key import check_key
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.api.request import Request
from nextscene.judge.base import Call, JudgeText, NoVerdict, Question, Verdict
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.errors import CAPTION_TOO_LONG, JUDGE_ERROR, RequestFailed
from nextscene.judge.judge_kind import JudgeKind
from nextscene.judge.prompt_version import prompt_version
from nextscene.judge.request_builder import RequestBuilder
from nextscene.judge.run_ownership import RunOwnershipCheck
from nextscene.judge.spending.call_journal import JOURNALS
from nextscene.judge.spending.prices import Price, Prices
from nextscene.judge.verdict_parser import parse_verdict
from nextscene.prompts import load

T = TypeVar("T")

_LABEL = re.compile(r"^\W*description\s*:\W*", re.IGNORECASE)
_MAX_REPEATS = 1
"""The number of times that a question is repeated after an unreadable answer."""


class RequestClient(Protocol):
    """A client that answers requests: CachedClient, or a replay of stored answers."""

    async def ask(self, request: Request, priority: int, clip_id: str) -> Answer:
        """Return the answer. Raise RequestFailed."""
        ...

    async def has_answer(self, request: Request) -> bool:
        """Return whether the answer is stored, or on its way in a batch."""
        ...


class ClaudeJudge:
    """The judge that asks a Claude model: it writes the scene before a clip, verifies it, and captions clips.

    async with ClaudeJudge.open("answers", budget_usd=1) as judge:
        question = Question("clip-1", caption="A dog shakes water off its fur.")
        scene = await judge.describe(question)
        verdict = await judge.verify(question, scene.text)
        print(scene.text, verdict.verdict, verdict.reason)
    """

    name = "claude"

    def __init__(self, settings: ClaudeConfig, price: Price, client: RequestClient) -> None:
        self._requests = RequestBuilder(settings, price)
        self._client = client
        self.rounds = settings.rounds
        self.prompt_sha256 = load("preceding_description").sha256

    @staticmethod
    @asynccontextmanager
    async def open(
        location: str | Path, *, model: str = ClaudeConfig.model, budget_usd: Decimal | float | str | None = None
    ) -> AsyncIterator[ClaudeJudge]:
        """Yield a judge that pays for each question once; its answers are stored in `calls/` below `location`.

        `location` is a folder or the URI of one in an object store, locked for the time of the block: the same question
        asked in a later block costs nothing. `budget_usd`, in US dollars, bounds the cost of all blocks on the folder
        together; None for no limit. The key is taken from ANTHROPIC_API_KEY.

        Raise JudgeUsageError for a missing key or a model without a price, RunStopped if another process holds the
        folder, and JudgeStopped for damaged records. Questions raise JudgeStopped when the budget is used up.
        """
        from nextscene.judge.spending.cached_client import CachedClient  # it loads the SDK

        check_key()
        price = Prices.load().for_model(model)
        budget = None if budget_usd is None else Decimal(str(budget_usd))
        folder, run_id = Storage.at(location), uuid.uuid4().hex
        with hold_lock(folder, run_id) as heartbeat:
            files, ownership = heartbeat.out, RunOwnershipCheck(folder, run_id)
            client = await CachedClient.open(
                files, local_state(files, JOURNALS), price, RetryPolicy(), budget, check_ownership=ownership.check
            )
            try:
                config = ClaudeConfig(model=model, prompt_version=prompt_version(files))
                yield ClaudeJudge(config, price, client)
            finally:
                await client.close()

    async def caption(self, question: Question) -> JudgeText:
        """Return a one-line caption of the frames of the clip."""
        if not question.frames:
            raise NoVerdict("rejected", "no_caption", "the source gives no caption for it, and no frames could be seen")
        request = self._requests.caption(question)
        if question.earlier_frames:
            earlier = replace(request, frames=question.earlier_frames)
            request = earlier if await self._client.has_answer(earlier) else request
        return await self._text(request, question)

    async def describe(self, question: Question, rejected_scenes: tuple[str, ...] = ()) -> JudgeText:
        """Return the likely event just before the clip, in one line."""
        return await self._text(self._requests.describe(question, rejected_scenes), question)

    async def verify(self, question: Question, scene: str) -> Verdict:
        """Return the model's verdict on the scene, with its reason."""
        request = self._requests.verify(question, scene)
        return await self._ask_verdict(request, question)

    async def check_consistency(self, question: Question, scene: str) -> Verdict:
        """Return whether a video generated from `scene`, described by the caption, continues it (template 10.1)."""
        return await self._ask_verdict(self._requests.consistency(question, scene), question)

    async def _ask_verdict(self, request: Request, question: Question) -> Verdict:
        (verdict, reason), calls = await self._ask_readable(request, question, parse_verdict)
        return Verdict(verdict, reason, calls[-1].answer.model_served, calls)

    async def _text(self, request: Request, question: Question) -> JudgeText:
        text, calls = await self._ask_readable(request, question, _one_line)
        return JudgeText(text, calls)

    async def _ask_readable(
        self, request: Request, question: Question, read: Callable[[str], T | None]
    ) -> tuple[T, tuple[Call, ...]]:
        """Return the parsed answer. A question whose answer is cut off or unreadable is asked again once."""
        try:
            request.text.encode()
        except UnicodeEncodeError as error:
            raise NoVerdict("failed", "bad_caption", f"{request.task}: its question is not Unicode text") from error
        calls: list[Call] = []
        for repeat in range(_MAX_REPEATS + 1):
            answer = await self._ask_whole(replace(request, repeat=repeat), question, calls)
            if (found := read(answer.text)) is not None:
                return found, tuple(calls)
        raise NoVerdict(
            "failed",
            "unreadable_answer",
            f"{request.task}: {answer.explanation or repr(answer.text[:200])}",
            tuple(calls),
        )

    async def _ask_whole(self, request: Request, question: Question, calls: list[Call]) -> Answer:
        for factor in (1, 2):
            larger = replace(request, max_tokens=factor * request.max_tokens)
            try:
                answer = await self._client.ask(larger, question.priority, question.clip_id)
            except RequestFailed as error:
                no_caption = request.task == "caption" and error.reason == CAPTION_TOO_LONG  # its pictures are too many
                reason = JUDGE_ERROR if no_caption else error.reason
                raise NoVerdict("failed", reason, f"{request.task}: {error.detail}", tuple(calls)) from error
            calls.append(Call(request.task, request.prompt, request.prompt_sha256, answer))
            if answer.status == "refused":
                detail = f"{request.task}: {answer.explanation}".rstrip(": ")
                raise NoVerdict("refused", answer.category or "unspecified", detail, tuple(calls))
            if answer.status == "whole":
                return answer
        detail = f"{request.task}: {answer.stop_reason} at {larger.max_tokens} tokens"
        raise NoVerdict("failed", "truncated", detail, tuple(calls))


_FIRST_PROMPTS = ("caption", "preceding_description", "retry", "verification")
_PROMPTS = {1: _FIRST_PROMPTS, 2: (*_FIRST_PROMPTS, "notice")}
"""Version of the prompts → their names."""

CLAUDE = JudgeKind(
    name="claude",
    method="a language model wrote each scene from the clip's caption and verified it, with the prompts of"
    " arXiv 2512.13015 (section 11.1); the ledger names the model of each verdict",
    open=ClaudeJudge,
    settings="claude",
    prompts=lambda settings: _PROMPTS[settings.prompt_version],
    pays=True,
    can_caption=True,
    is_language_model=True,
)


def _one_line(text: str) -> str | None:
    """Return the text without a leading `Description:`, on one line; None if nothing is left."""
    return " ".join(_LABEL.sub("", text).split()) or None
