"""The account against a plain model: whatever happens in whatever order, the budget holds and nothing is forgotten."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from judge.account import ACCOUNT, Account, Statement

from judge.answer import Answer
from judge.errors import JudgeStopped
from judge.open_batch import OpenBatch
from judge.segments import CALLS
from shards.storage import Storage
from tests.judge.asking import USD, MemoryFiles, answer, in_no_time, until_quiet, without_threads

T = TypeVar("T")
BUDGET = Decimal(1)
amounts = st.integers(1, 60).map(lambda cents: Decimal(cents) / 100)
shares = st.sampled_from([Decimal(0), Decimal("0.1"), Decimal("0.5"), Decimal(1)])


def at_once(work: Coroutine[Any, Any, T]) -> T:
    with without_threads():
        return in_no_time(work)


# ---- any order of events, and a crash at any point ---------------------------------------------------------------


class Books(RuleBasedStateMachine):
    """What was truly spent beside what the account says. Each question under way is charged for at its worst."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.patch = without_threads()
        self.patch.__enter__()
        self.files = MemoryFiles()
        self.spent = Decimal(0)
        self.lost = Decimal(0)
        self.paid = 0
        # On file beside the account: batches that stand as open, with their worst case, and what each will have cost.
        self.open: dict[str, Decimal] = {}
        self.due: dict[str, Decimal] = {}
        self.counted: set[str] = set()
        self.batches = 0
        self.begin()

    def begin(self) -> None:
        self.waiting: list[tuple[Decimal, asyncio.Task[None]]] = []
        self.under_way: list[Decimal] = []
        self.account = self.run(self.opened())

    async def opened(self) -> Account:
        return Account(self.files, BUDGET, dict(self.open))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def _quiet(self) -> None:
        await until_quiet()
        for worst, task in list(self.waiting):
            if not task.done():
                continue
            self.waiting.remove((worst, task))
            if task.exception() is None:
                self.under_way.append(worst)
            else:
                assert isinstance(task.exception(), JudgeStopped)
                assert self.account.committed + worst > BUDGET, "it was turned away though there was room"

    @property
    def truth(self) -> Decimal:
        """All that may have been charged for by now."""
        in_batches = sum((worst for name, worst in self.open.items() if name not in self.counted), Decimal(0))
        return self.spent + self.lost + sum(self.under_way, Decimal(0)) + in_batches

    @rule(worst=amounts)
    def ask(self, worst: Decimal) -> None:
        async def asked() -> None:
            self.waiting.append((worst, asyncio.create_task(self.account.reserve(worst))))
            await self._quiet()

        self.run(asked())

    @precondition(lambda self: self.under_way)
    @rule(share=shares, drawn=st.data())
    def an_answer_comes(self, share: Decimal, drawn: st.DataObject) -> None:
        worst = self.under_way.pop(drawn.draw(st.integers(0, len(self.under_way) - 1)))
        self.spent += worst * share
        self.paid += 1
        self.run(self._then(self.account.settle(worst, worst * share)))

    @precondition(lambda self: self.under_way)
    @rule()
    def an_answer_is_lost(self) -> None:
        worst = self.under_way.pop()
        self.lost += worst
        self.run(self._then(self.account.lose(worst)))

    @precondition(lambda self: self.under_way)
    @rule()
    def a_question_is_turned_away(self) -> None:
        self.run(self._then(self.account.release(self.under_way.pop())))

    @rule()
    def the_books_are_written(self) -> None:
        self.run(self._then(self.account.write()))

    @precondition(lambda self: self.under_way)
    @rule(share=shares)
    def what_was_reserved_becomes_an_open_batch(self, share: Decimal) -> None:
        self.batches += 1
        name = f"b{self.batches}"
        self.open[name] = self.under_way.pop()
        self.due[name] = self.open[name] * share

    @precondition(lambda self: self.open)
    @rule(cut_off=st.booleans(), drawn=st.data())
    def a_batch_is_collected(self, cut_off: bool, drawn: st.DataObject) -> None:
        """With `cut_off` the process dies when the account is written, before the batch is forgotten."""
        name = drawn.draw(st.sampled_from(sorted(self.open)))
        if name not in self.counted:
            self.spent += self.due[name]
            self.paid += 1
            self.counted.add(name)
        self.run(self._then(self.account.settle_batch(name, self.open[name], self.due[name], 1)))
        if cut_off:
            self.crash()
        else:
            del self.open[name]
            self.account.collected.discard(name)

    @rule()
    def crash(self) -> None:
        self._die(self.files.data)

    @rule(worst=amounts, steps=st.integers(0, 12))
    def crash_while_asking(self, worst: Decimal, steps: int) -> None:
        async def asked() -> Decimal:
            asking = asyncio.create_task(self.account.reserve(worst))
            writing = asyncio.create_task(self.account.write())
            for _ in range(steps):
                await asyncio.sleep(0)
            reserved = worst if asking.done() and asking.exception() is None else Decimal(0)
            for task in (asking, writing):
                task.cancel()
            return reserved

        data = self.files.data
        reserved = self.run(asked())
        self.under_way += [reserved] if reserved else []
        self._die(data)

    def _die(self, data: dict[str, bytes]) -> None:
        left = MemoryFiles(data)  # what stands in it now; what comes after the crash is not on file
        truth = self.truth

        async def end() -> None:
            for _, task in self.waiting:
                task.cancel()
            await until_quiet()

        self.run(end())
        self.lost += sum(self.under_way, Decimal(0))
        self.files = left
        self.begin()
        assert self.account.committed >= truth
        assert self.account.answers <= self.paid

    async def _then(self, work: Coroutine[Any, Any, None]) -> None:
        await work
        await self._quiet()

    @invariant()
    def the_budget_holds_and_covers_the_truth(self) -> None:
        assert self.truth <= self.account.committed <= BUDGET

    @invariant()
    def what_is_on_file_covers_all_that_may_have_been_charged_for(self) -> None:
        statement = Statement.read(self.files)
        assert self.truth <= max(statement.allowance, statement.spent + statement.lost) <= BUDGET or not self.truth

    @invariant()
    def nobody_waits_while_nothing_is_under_way(self) -> None:
        if self.waiting:
            assert self.account.reserved > 0
        in_batches = sum((worst for name, worst in self.open.items() if name not in self.counted), Decimal(0))
        assert self.account.reserved == sum(self.under_way, Decimal(0)) + in_batches

    def teardown(self) -> None:
        async def end() -> None:
            for _, task in self.waiting:
                task.cancel()
            await until_quiet()

        self.run(end())
        self.runner.close()
        self.patch.__exit__(None, None, None)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


# ---- many at once ----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(amounts, shares, st.sampled_from(["settle", "lose", "release"])), min_size=64, max_size=64),
    st.integers(1, 2000).map(lambda cents: Decimal(cents) / 100),
)
def test_64_who_ask_at_once_never_pass_the_budget_and_each_is_served_or_turned_away(
    calls: list[tuple[Decimal, Decimal, str]], budget: Decimal
) -> None:
    async def work() -> None:
        files = MemoryFiles()
        account = Account(files, budget, {})
        turned_away: list[Decimal] = []

        async def call(worst: Decimal, share: Decimal, end: str) -> None:
            try:
                await account.reserve(worst)
            except JudgeStopped:
                turned_away.append(worst)
                return
            on_file = Statement.read(files)
            assert account.committed <= on_file.allowance <= budget
            await asyncio.sleep(float(share))
            if end == "settle":
                await account.settle(worst, worst * share)
            else:
                await getattr(account, end)(worst)

        await asyncio.gather(*(call(*each) for each in calls))
        assert account.reserved == 0
        assert all(account.committed + worst > budget for worst in turned_away), "what is given back is used"
        assert account.committed <= budget
        await account.write()
        assert Statement.read(files).allowance == account.committed == account.spent + account.lost

    at_once(work())


@settings(max_examples=60, deadline=None)
@given(st.lists(amounts, min_size=1, max_size=40), amounts, st.booleans())
def test_of_a_batch_as_much_is_reserved_as_there_is_room_for_from_the_first_on(
    worsts: list[Decimal], spent: Decimal, wait: bool
) -> None:
    async def work() -> None:
        account = Account(MemoryFiles(), BUDGET, {})
        await account.reserve(spent)
        if wait:
            asyncio.get_running_loop().call_later(1, lambda: asyncio.ensure_future(account.settle(spent, spent)))
        else:
            await account.settle(spent, spent)
        room = BUDGET - spent
        fitting = sum(sum(worsts[: count + 1]) <= room for count in range(len(worsts)))
        try:
            count = await account.reserve_most(worsts)
        except JudgeStopped:
            assert not fitting or (fitting < len(worsts) / 10 and room < BUDGET / 10)
        else:
            assert count == fitting > 0
            assert fitting >= len(worsts) / 10 or room >= BUDGET / 10
            await asyncio.sleep(2)
            assert account.reserved == sum(worsts[:count])

    at_once(work())


def test_without_a_budget_everything_fits() -> None:
    async def work() -> Account:
        account = Account(MemoryFiles(), None, {})
        await asyncio.gather(*(account.reserve(Decimal(10**6)) for _ in range(100)))
        return account

    assert at_once(work()).reserved == 10**8


def test_not_every_call_waits_for_a_write() -> None:
    files = MemoryFiles()

    async def work() -> None:
        account = Account(files, None, {})
        for _ in range(50):
            await account.reserve(Decimal("0.01"))
        for _ in range(2000):
            await account.reserve(Decimal("0.01"))
            await account.settle(Decimal("0.01"), Decimal("0.001"))

    at_once(work())
    assert files.writes < 100


# ---- batches ---------------------------------------------------------------------------------------------------


def test_a_batch_that_was_collected_and_not_yet_forgotten_counts_once_however_often_the_process_dies() -> None:
    files = MemoryFiles()
    worst, cost = Decimal("0.4"), Decimal("0.1")

    async def collected() -> Account:
        account = Account(files, BUDGET, {"b": worst})
        await account.settle_batch("b", worst, cost, 7)
        return account

    async def work() -> None:
        account = Account(files, BUDGET, {})
        await account.reserve(worst)
        await account.write()
        for _ in range(3):
            account = await collected()
            assert (account.spent, account.reserved + account.lost, account.answers) == (cost, Decimal(0), 7)
        again = Account(files, BUDGET, {})
        assert (again.spent, again.committed, again.answers) == (cost, cost, 7)

    at_once(work())


def test_an_open_batch_of_an_earlier_run_is_under_way_and_not_lost() -> None:
    files = MemoryFiles()

    async def work() -> None:
        before = Account(files, BUDGET, {})
        await before.reserve(Decimal("0.5"))
        await before.reserve(Decimal("0.2"))  # and this one was lost with the process
        account = Account(files, BUDGET, {"b": Decimal("0.5")})
        assert account.reserved == Decimal("0.5") and account.lost >= Decimal("0.2")
        assert account.committed <= BUDGET

    at_once(work())


# ---- the file --------------------------------------------------------------------------------------------------


def test_the_books_survive_on_a_disk(tmp_path: Path) -> None:
    async def work() -> None:
        account = Account(Storage.at(tmp_path), Decimal(5), {})
        await account.reserve(Decimal(2))
        await account.settle(Decimal(2), Decimal("1.25"))
        await account.reserve(Decimal(1))
        await account.lose(Decimal(1))
        await account.write()

    asyncio.run(work())
    found = Statement.read(Storage.at(tmp_path))
    assert found == Statement(Decimal("1.25"), Decimal(1), Decimal("2.25"), 1)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"null", b"\xff", b'{"spent": "x"}'])
def test_a_damaged_account_ends_the_run_since_nobody_knows_what_was_spent(content: bytes) -> None:
    with pytest.raises(JudgeStopped, match=rf"^{ACCOUNT} is damaged .* restore it"):
        Account(MemoryFiles({ACCOUNT: content}), BUDGET, {})


def segment(drawer: str, name: str, *answers: Answer) -> dict[str, bytes]:
    return {f"{CALLS}/{drawer}/{name}.jsonl.gz": gzip.compress(b"".join(one.to_line() for one in answers))}


@pytest.mark.parametrize("data", [{}, {ACCOUNT: b""}, {ACCOUNT: bytes(100)}], ids=["gone", "empty", "zeros"])
def test_an_account_that_was_lost_is_made_anew_from_the_answers_and_what_is_open(
    data: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that stands twice counts once, a shared one nothing, and those of an open batch as that ends."""
    a, b, c = (replace(answer(key), message_id=key) for key in "abc")
    shared, batched = replace(a, usd=Decimal(0), shared=True), replace(c, batch_id="batch_1")
    files = MemoryFiles(data | segment("train/000/000000", "1", a) | segment("train/000/000000", "2", a, b))
    files.data |= segment("train/000/000001", "1", shared, batched)
    batch = OpenBatch("open", 0.0, Decimal("0.5"), {"c": "train/000/000001"}, "batch_1")
    batch.write(files)
    statement = Statement.read(files)
    assert statement == Statement(2 * USD, Decimal(0), 2 * USD + batch.worst, 2)
    assert "2 stored answers" in caplog.text

    async def work() -> None:
        account = Account(files, BUDGET, {batch.name: batch.worst})
        assert (account.spent, account.lost, account.reserved) == (2 * USD, 0, batch.worst)
        await account.settle_batch(batch.name, batch.worst, USD, 1)

    at_once(work())
    assert Statement.read(files).spent == 3 * USD


def test_an_account_that_was_made_anew_is_put_on_file_though_nothing_is_asked() -> None:
    files = MemoryFiles({ACCOUNT: b""} | segment("train/000/000000", "1", answer("a")))
    at_once(Account(files, BUDGET, {}).write())
    assert files.data[ACCOUNT] and Statement.read(files).spent == USD


@given(st.sampled_from(["spent", "lost", "allowance"]), st.sampled_from(["", "x", None, [], "1,5"]))
def test_money_that_is_no_number_is_damage(name: str, value: Any) -> None:
    whole = json.loads(Statement().to_bytes())
    with pytest.raises(JudgeStopped):
        Statement.read(MemoryFiles({ACCOUNT: json.dumps({**whole, name: value}).encode()}))


def test_who_has_no_room_left_is_told_the_sums_and_the_remedy() -> None:
    async def work() -> None:
        account = Account(MemoryFiles(), BUDGET, {})
        await account.reserve(Decimal("0.75"))
        await account.settle(Decimal("0.75"), Decimal("0.5"))
        await account.reserve(Decimal("0.25"))
        await account.lose(Decimal("0.25"))
        await account.reserve(Decimal("0.3"))

    with pytest.raises(JudgeStopped) as raised:
        at_once(work())
    assert str(raised.value) == (
        "the budget of $1 is used up: $0.5000 spent on 1 answers and $0.25 set aside for answers that were lost;"
        " what comes next may cost $0.3000. Raise --budget-usd"
    )


def test_a_disk_that_fails_reserves_nothing() -> None:
    async def work() -> None:
        files = MemoryFiles()
        account = Account(files, BUDGET, {})
        files.full = True
        told = await asyncio.gather(*(account.reserve(Decimal("0.1")) for _ in range(8)), return_exceptions=True)
        assert [type(error) for error in told] == [OSError] * 8
        assert account.reserved == 0
        files.full = False
        await account.reserve(Decimal("0.1"))

    at_once(work())


@pytest.mark.parametrize("cancelled", ["write", "reserve"])
def test_a_write_that_nobody_waits_for_any_longer_never_lands_on_top_of_a_later_one(cancelled: str) -> None:
    class Slow(MemoryFiles):
        def write(self, path: str, data: bytes) -> None:
            if not begun.is_set():
                begun.set()
                assert go_on.wait(10)
            super().write(path, data)

    begun, go_on = threading.Event(), threading.Event()
    files = Slow()
    asked: dict[str, Callable[[Account], Coroutine[Any, Any, None]]] = {
        "write": lambda account: account.settle_batch("b", Decimal(0), Decimal("0.1"), 1),
        "reserve": lambda account: account.reserve(Decimal("0.1")),
    }

    async def work() -> None:
        account = Account(files, BUDGET, {})
        first = asyncio.create_task(asked[cancelled](account))
        await asyncio.to_thread(begun.wait, 10)
        first.cancel()
        account.spent += Decimal("0.2")
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await account.write()
        while files.writes < 2:
            await asyncio.sleep(0.01)
        assert Statement.read(files).spent == account.spent

    asyncio.run(work())
