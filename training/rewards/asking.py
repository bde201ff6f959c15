"""The judge during training, in a thread of its own. Each question is paid for only once, and its answer is stored."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from nextscene.common.local_state import local_state
from nextscene.common.storage import Storage, StorageFault
from nextscene.judge.api.backoff import RetryPolicy
from nextscene.judge.base import Calls, NoVerdict, Question, charge_once
from nextscene.judge.call_progress import CallProgress
from nextscene.judge.claude import ClaudeJudge
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.prompt_version import prompt_version
from nextscene.judge.spending.cached_client import CachedClient
from nextscene.judge.spending.call_journal import JOURNALS
from nextscene.judge.spending.prices import Price
from nextscene.training.rewards.base import RewardVerdict, known_rewards

_LAST_SECONDS = 30.0


@dataclass(frozen=True)
class RewardResult:
    """The result of a question, and the API calls that it took. The other fields are those of `RewardVerdict`."""

    reward: float | None
    reason: str
    caption: str
    model: str
    calls: Calls
    retryable: bool = False


class JudgeThread:
    """A thread with its own event loop that asks the judge while training continues."""

    def __init__(
        self,
        settings: ClaudeConfig,
        price: Price,
        files: Storage,
        budget: Decimal | None,
        patience: RetryPolicy | None = None,
        check_ownership: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the thread, and open the store of answers, which is calls/ in `files`.

        `budget` limits the total cost of all stored answers, in US dollars. `check_ownership` raises JudgeStopped if
        another run has taken over the store. Raise JudgeUsageError without an API key, JudgeStopped if the store is
        damaged, and StorageFault.
        """
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._numbers = itertools.count()
        self._begun: Future[CachedClient] = Future()
        terms = (files, price, patience or RetryPolicy(), budget, check_ownership)
        self._thread = threading.Thread(target=self._run, args=terms, name="judge", daemon=True)
        self._thread.start()
        self._client = self._begun.result()
        self.settings = replace(settings, prompt_version=prompt_version(files))
        self._judge = ClaudeJudge(self.settings, price, self._client)

    def flush(self) -> None:
        """Wait until every answer so far is stored. Raise StorageFault if one cannot be stored."""
        asyncio.run_coroutine_threadsafe(self._client.flush(), self._loop).result()

    def submit(self, question: Question, scene: str, verdicts: int = 1) -> Future[RewardResult]:
        """Ask whether a video continues `scene`. If the question has no caption, its frames are captioned first.

        `verdicts` independent verdicts are asked for; the reward is the mean of those that are given. The future raises
        JudgeUsageError, JudgeStopped or StorageFault. After one of these no question is answered.
        """
        placed = replace(question, priority=next(self._numbers))  # finish questions in the order of their start
        return asyncio.run_coroutine_threadsafe(self._judged(placed, scene, verdicts), self._loop)

    def report(self) -> CallProgress:
        """Return the progress of the calls so far."""
        return self._client.progress()

    def close(self) -> None:
        """Stop asking. Wait a limited time for calls in flight, and store their answers. It never raises or hangs."""
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(_LAST_SECONDS)

    def _run(self, *terms: Any) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live(*terms))

    async def _live(
        self,
        files: Storage,
        price: Price,
        patience: RetryPolicy,
        budget: Decimal | None,
        check_ownership: Callable[[], None],
    ) -> None:
        try:
            client = await CachedClient.open(
                files, local_state(files, JOURNALS), price, patience, budget, check_ownership=check_ownership
            )
        except BaseException as error:  # noqa: BLE001 – raised in the thread that started this one
            self._begun.set_exception(error)
            return
        self._begun.set_result(client)
        await self._over.wait()
        with suppress(JudgeStopped, StorageFault):  # the stored account counts the worst-case cost of unfinished calls
            await client.close()

    async def _judged(self, question: Question, scene: str, verdicts: int) -> RewardResult:
        caption: str = question.caption
        calls: Calls = ()
        if not caption:
            try:
                said = await self._judge.caption(question)
            except NoVerdict as end:
                return _no_reward(end, "")
            caption, calls = said.text, said.calls
        asked = replace(question, caption=caption, frames=())
        # A question with another `attempt` is another question: asked, paid for and stored apart. The first has the 0.
        single = [self._verdict(replace(asked, attempt=number), scene) for number in range(verdicts)]
        found = _combined(await asyncio.gather(*single))
        return replace(found, calls=calls + found.calls)

    async def _verdict(self, question: Question, scene: str) -> RewardResult:
        try:
            opinion = await self._judge.check_consistency(question, scene)
        except NoVerdict as end:
            return _no_reward(end, question.caption)
        reward = 1.0 if opinion.verdict == "Pass" else 0.0
        return RewardResult(reward, opinion.reason, question.caption, opinion.model, opinion.calls)


def _no_reward(end: NoVerdict, caption: str) -> RewardResult:
    reason = f"{end.outcome}, {end.reason}: {end.detail}"
    return RewardResult(None, reason, caption, "", end.calls, retryable=end.reason == "judge_error")


def _combined(verdicts: Sequence[RewardResult]) -> RewardResult:
    """Return the result of several verdicts on the same caption: the mean of their rewards, None if none has one.

    The reason names all verdicts. The cause of a missing one may go away only if all are missing and one may be had.
    """
    if len(verdicts) == 1:
        return verdicts[0]
    rewards = known_rewards(verdict.reward for verdict in verdicts)
    words = {1.0: "Pass: ", 0.0: "Fail: ", None: ""}
    return RewardResult(
        sum(rewards) / len(rewards) if rewards else None,
        " | ".join(f"{words[verdict.reward]}{verdict.reason}" for verdict in verdicts),
        verdicts[0].caption,
        next((verdict.model for verdict in verdicts if verdict.model), ""),
        tuple(call for verdict in verdicts for call in verdict.calls),
        retryable=not rewards and any(verdict.retryable for verdict in verdicts),
    )


def to_verdicts(judged: Iterable[RewardResult]) -> list[RewardVerdict]:
    """Return a verdict for each result, with its cost. If several results share an answer, the first has its cost."""
    charged: set[str] = set()

    def verdict(one: RewardResult) -> RewardVerdict:
        usd = sum((call.answer.usd for call in charge_once(one.calls, charged)), Decimal(0))
        return RewardVerdict(one.reward, one.reason, one.caption, one.model, usd, one.retryable)

    return [verdict(one) for one in judged]
