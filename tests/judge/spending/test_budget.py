"""The budget against a plain model: whatever happens in whatever order, the limit holds and nothing is forgotten."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nextscene.judge.api.answer import Answer
from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.spending.answer_cache import AnswerCache
from nextscene.judge.spending.budget import Budget
from nextscene.judge.spending.budget_record import ACCOUNT, BudgetRecord
from tests.judge.spending.test_answer_cache import key
from tests.judge.support import MemoryFiles, answer, in_no_time, without_threads

pytestmark = pytest.mark.slow

T = TypeVar("T")
LIMIT = Decimal(1)
amounts = st.integers(1, 60).map(lambda cents: Decimal(cents) / 100)
shares = st.sampled_from([Decimal(0), Decimal("0.1"), Decimal("0.5"), Decimal(1)])


def at_once(work: Coroutine[Any, Any, T]) -> T:
    with without_threads():
        return in_no_time(work)


@contextmanager
def journals() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


async def opened(
    files: MemoryFiles, folder: Path, limit: Decimal | None = LIMIT, in_batches: Decimal = Decimal(0)
) -> tuple[Budget, AnswerCache]:
    """As a run begins."""
    cache = AnswerCache(files, folder)
    await cache.store()
    budget = Budget(files, limit, cache, in_batches, ShutdownSignal())
    await budget.start()
    cache.delete_recovered_journals()
    return budget, cache


def costing(name: object, usd: Decimal) -> Answer:
    return replace(answer(key(name)), usd=usd, message_id=f"msg {name}")


def on_file(files: MemoryFiles) -> BudgetRecord:
    record = BudgetRecord.read(files)
    assert record is not None
    return record


# ---- any order of events, and a crash at any point ---------------------------------------------------------------


class Books(RuleBasedStateMachine):
    """A server that charges, beside the budget. A question in doubt is charged at its worst-case cost."""

    def __init__(self) -> None:
        super().__init__()
        self.files, self.folder = MemoryFiles(), Path(tempfile.mkdtemp())
        self.spent = self.in_doubt = Decimal(0)
        self.under_way: dict[str, Decimal] = {}
        self.calls = 0
        self.run(self._open())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return at_once(work)

    async def _open(self) -> None:
        self.budget, self.cache = await opened(self.files, self.folder)

    @property
    def truth(self) -> Decimal:
        return self.spent + self.in_doubt + sum(self.under_way.values(), Decimal(0))

    @rule(worst=amounts)
    def a_call_is_sent(self, worst: Decimal) -> None:
        if not self.budget.has_room(worst):
            return
        self.calls += 1
        call = f"call {self.calls}"
        self.run(self.budget.reserve(call, key(call), worst))
        self.under_way[call] = worst
        assert self.truth <= on_file(self.files).allowance <= LIMIT

    @precondition(lambda self: self.under_way)
    @rule(share=shares, drawn=st.data())
    def it_is_answered(self, share: Decimal, drawn: st.DataObject) -> None:
        call = drawn.draw(st.sampled_from(sorted(self.under_way)))
        worst = self.under_way.pop(call)
        self.spent += share * worst
        self.run(self._settled(call, costing(call, share * worst)))

    async def _settled(self, call: str, found: Answer) -> None:
        self.budget.settle(call, found)

    @precondition(lambda self: self.under_way)
    @rule(lost=st.booleans(), drawn=st.data())
    def it_is_lost_or_turned_away(self, lost: bool, drawn: st.DataObject) -> None:
        call = drawn.draw(st.sampled_from(sorted(self.under_way)))
        worst = self.under_way.pop(call)
        self.in_doubt += worst if lost else 0

        async def end() -> None:
            (self.budget.mark_lost if lost else self.budget.release)(call)

        self.run(end())

    @rule()
    def the_record_is_written(self) -> None:
        self.run(self.budget.write())

    @rule()
    def answers_are_stored(self) -> None:
        self.run(self.cache.store())

    @rule(times=st.integers(1, 3))
    def it_is_killed(self, times: int) -> None:
        """Once or several times in a row: the same calls are in doubt, and no more."""
        self.in_doubt += sum(self.under_way.values(), Decimal(0))
        self.under_way.clear()
        for _ in range(times):
            self.cache.journal.close()
            self.run(self._open())
            assert (self.budget.spent, self.budget.lost) == (self.spent, self.in_doubt)

    @rule()
    def the_machine_is_gone(self) -> None:
        """With its journal, and with the answers that were not stored: only the allowance is known."""
        self.run(self.cache.store())
        truth = self.truth
        self.cache.journal.close()
        shutil.rmtree(self.folder)
        self.run(self._open())
        assert truth <= self.budget.committed <= LIMIT
        self.in_doubt = self.budget.lost
        self.under_way.clear()

    @invariant()
    def the_limit_holds_and_the_books_are_exact(self) -> None:
        assert self.budget.spent == self.spent
        assert self.truth == self.budget.committed <= LIMIT

    def teardown(self) -> None:
        self.cache.journal.close()
        shutil.rmtree(self.folder)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


# ---- many at once ----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(amounts, shares, st.sampled_from(["settle", "mark_lost", "release"])), min_size=48, max_size=48),
    st.integers(1, 2000).map(lambda cents: Decimal(cents) / 100),
)
def test_who_ask_at_once_never_pass_the_limit_and_each_is_served_or_turned_away(
    calls: list[tuple[Decimal, Decimal, str]], limit: Decimal
) -> None:
    async def work(folder: Path) -> None:
        files = MemoryFiles()
        budget, cache = await opened(files, folder, limit)
        turned_away: list[Decimal] = []

        async def call(number: int, worst: Decimal, share: Decimal, end: str) -> None:
            name = f"call {number}"
            try:
                await budget.reserve(name, key(name), worst, priority=number)
            except JudgeStopped:
                turned_away.append(worst)
                return
            assert budget.committed <= on_file(files).allowance <= limit
            await asyncio.sleep(float(share))
            if end == "settle":
                budget.settle(name, costing(name, worst * share))
            else:
                getattr(budget, end)(name)

        await asyncio.gather(*(call(number, *each) for number, each in enumerate(calls)))
        assert budget.reserved == 0
        assert all(budget.committed + worst > limit for worst in turned_away), "what is given back is used"
        await budget.close()
        last = on_file(files)
        assert last.allowance == budget.committed == last.spent + last.lost <= limit and not last.is_open
        cache.journal.close()

    with journals() as folder:
        at_once(work(folder))


def test_waiting_calls_go_by_priority_and_a_too_large_one_blocks_nobody() -> None:
    async def work(folder: Path) -> list[str]:
        budget, _ = await opened(MemoryFiles(), folder)
        went: list[str] = []

        async def call(name: str, worst: str, priority: int) -> None:
            try:
                await budget.reserve(name, key(name), Decimal(worst), priority)
            except JudgeStopped as stop:
                went.append(f"{name}: {str(stop)[:30]}")
                return
            went.append(name)
            await asyncio.sleep(1)
            budget.settle(name, costing(name, Decimal("0.1")))

        first = asyncio.create_task(call("first", "0.9", 9))
        await asyncio.sleep(0.1)
        later = [call("last", "0.2", 7), call("huge", "1.5", 1), call("next", "0.6", 2), call("third", "0.6", 3)]
        await asyncio.gather(first, *later)
        return went

    with journals() as folder:
        assert at_once(work(folder)) == ["first", "next", "third", "last", "huge: the budget of $1 is used up: $"]


@settings(max_examples=40, deadline=None)
@given(st.lists(amounts, min_size=1, max_size=40), amounts, st.booleans())
def test_of_a_batch_as_much_is_reserved_as_there_is_room_for_from_the_first_on(
    worsts: list[Decimal], spent: Decimal, wait: bool
) -> None:
    async def work(folder: Path) -> None:
        budget, cache = await opened(MemoryFiles(), folder)
        await budget.reserve("a", key("a"), spent)
        if wait:
            asyncio.get_running_loop().call_later(1, budget.settle, "a", costing("a", spent))
        else:
            budget.settle("a", costing("a", spent))
        room = LIMIT - spent
        fitting = sum(sum(worsts[: count + 1]) <= room for count in range(len(worsts)))
        try:
            count = await budget.reserve_as_many(worsts)
        except JudgeStopped:
            assert not fitting or (fitting < len(worsts) / 10 and room < LIMIT / 10)
        else:
            assert count == fitting > 0
            assert fitting >= len(worsts) / 10 or room >= LIMIT / 10
            await asyncio.sleep(2)
            assert budget.reserved == sum(worsts[:count])
        cache.journal.close()

    with journals() as folder:
        at_once(work(folder))


def test_without_a_limit_everything_fits_and_not_every_call_waits_for_a_write() -> None:
    async def work(folder: Path) -> MemoryFiles:
        files = MemoryFiles()
        budget, _ = await opened(files, folder, None)
        for number in range(50):
            await budget.reserve(f"kept {number}", key(number), Decimal("0.01"))
        for number in range(2000):
            await budget.reserve(f"call {number}", key(number), Decimal("0.01"))
            budget.settle(f"call {number}", costing(number, Decimal("0.001")))
        await budget.reserve("large", key("large"), Decimal(10**6))
        return files

    with journals() as folder:
        assert at_once(work(folder)).writes < 100


# ---- what is lost ----------------------------------------------------------------------------------------------


def test_a_lost_call_counts_at_worst_case_until_its_question_is_answered() -> None:
    async def work(folder: Path) -> None:
        files = MemoryFiles()
        budget, cache = await opened(files, folder)
        await budget.reserve("a", key("question"), Decimal("0.3"))
        cache.journal.close()  # killed
        for _ in range(3):  # and again, before anything was asked
            budget, cache = await opened(files, folder)
            assert (budget.spent, budget.lost) == (0, Decimal("0.3"))
            cache.journal.close()
        budget, cache = await opened(files, folder)
        await budget.reserve("b", key("question"), Decimal("0.3"))
        budget.settle("b", costing("question", Decimal("0.02")))
        assert (budget.spent, budget.lost) == (Decimal("0.02"), Decimal("0.02"))
        cache.journal.close()
        budget, cache = await opened(files, folder)
        assert (budget.spent, budget.lost) == (Decimal("0.02"), Decimal("0.02"))
        cache.journal.close()

    with journals() as folder:
        at_once(work(folder))


def test_an_answer_that_was_on_its_way_to_the_store_is_not_lost() -> None:
    async def work(folder: Path) -> None:
        files = MemoryFiles()
        budget, cache = await opened(files, folder)
        await budget.reserve("a", key("a"), Decimal("0.3"))
        budget.settle("a", costing("a", Decimal("0.02")))
        cache.journal.close()
        budget, cache = await opened(files, folder)
        assert (budget.spent, budget.lost, budget.answers) == (Decimal("0.02"), 0, 1)
        cache.journal.close()

    with journals() as folder:
        at_once(work(folder))


# ---- the file --------------------------------------------------------------------------------------------------


def test_an_older_budget_record_is_read_and_reconciled_with_stored_answers() -> None:
    """It allowed $0.90, and wrote down less than was stored."""
    old = b'{"spent": "0.10", "lost": "0.05", "allowance": "0.90", "answers": 3, "collected": ["b"]}'

    async def work(folder: Path) -> None:
        files = MemoryFiles({ACCOUNT: old})
        cache = AnswerCache(files, folder)
        cache.add(costing("a", Decimal("0.2")))
        budget = Budget(files, LIMIT, cache, Decimal("0.3"), ShutdownSignal())
        assert (budget.spent, budget.reserved, budget.lost) == (Decimal("0.2"), Decimal("0.3"), Decimal("0.4"))
        cache.journal.close()

    with journals() as folder:
        at_once(work(folder))


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"null", b"\xff", b'{"spent": "x"}'])
def test_a_damaged_record_ends_the_run_since_nobody_knows_what_was_lost(content: bytes) -> None:
    with pytest.raises(JudgeStopped, match=rf"^{ACCOUNT} is damaged .* restore it"):
        BudgetRecord.read(MemoryFiles({ACCOUNT: content}))


@pytest.mark.parametrize("data", [{}, {ACCOUNT: b""}, {ACCOUNT: bytes(100)}], ids=["gone", "empty", "zeros"])
def test_a_record_that_was_lost_is_made_anew_from_the_answers(
    data: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async def work(folder: Path) -> None:
        files = MemoryFiles(data)
        cache = AnswerCache(files, folder)
        for name in "ab":
            cache.add(costing(name, Decimal("0.1")))
        await cache.close()
        cache.journal.close()
        budget, cache = await opened(files, folder)
        assert (budget.spent, budget.lost, budget.answers) == (Decimal("0.2"), 0, 2)
        assert on_file(files).spent == Decimal("0.2")
        cache.journal.close()

    with journals() as folder:
        at_once(work(folder))
    assert "2 stored answers" in caplog.text


def test_who_has_no_room_left_is_told_the_sums_and_the_remedy() -> None:
    async def work(folder: Path) -> None:
        budget, _ = await opened(MemoryFiles(), folder)
        await budget.reserve("a", key("a"), Decimal("0.75"))
        budget.settle("a", costing("a", Decimal("0.5")))
        await budget.reserve("b", key("b"), Decimal("0.25"))
        budget.mark_lost("b")
        await budget.reserve("c", key("c"), Decimal("0.3"))

    with pytest.raises(JudgeStopped) as raised, journals() as folder:
        at_once(work(folder))
    assert str(raised.value) == (
        "the budget of $1 is used up: $0.5000 spent on 1 answers and $0.2500 set aside for answers that were lost;"
        " what comes next may cost $0.3000. Raise `budget_usd`"
    )


def test_a_disk_that_fails_reserves_nothing() -> None:
    async def work(folder: Path) -> None:
        files = MemoryFiles()
        budget, _ = await opened(files, folder)
        files.full = True
        told = await asyncio.gather(
            *(budget.reserve(str(number), key(number), Decimal("0.1")) for number in range(8)), return_exceptions=True
        )
        assert [type(error) for error in told] == [OSError] * 8
        assert budget.reserved == 0
        files.full = False
        await budget.reserve("later", key("later"), Decimal("0.1"))

    with journals() as folder:
        at_once(work(folder))
