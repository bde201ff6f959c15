"""Which clips may begin with what is left of the budget; in simulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import pytest

from nextscene.judge.api.shutdown import ShutdownSignal
from nextscene.judge.errors import JudgeStopped, OverBudget
from nextscene.judge.spending.admission import Admission
from nextscene.judge.spending.budget import Budget
from tests.judge.support import in_no_time, until_quiet


@dataclass
class Purse:
    """A budget of $10, as far as Admission looks at it."""

    limit: Decimal = Decimal(10)
    spent: Decimal = Decimal(0)
    lost: Decimal = Decimal(0)
    held: Decimal = Decimal(0)

    def exhausted_message(self, worst: Decimal) -> str:
        return f"used up before ${worst}"


class Clips:
    """Clips that are expected to cost $1 each, in the order of their numbers, and the purse that pays for them."""

    def __init__(self, *numbers: int) -> None:
        self.purse = Purse()
        self.admission = Admission(cast(Budget, self.purse), ShutdownSignal())
        self.open = ExitStack()
        for number in numbers:
            self.open.enter_context(self.admission.announce(str(number), Decimal(1)))

    def begin(self, number: int, worst: int = 1) -> asyncio.Task[None]:
        """Such a call of ordinary length costs $1 at worst."""
        asked: Coroutine[Any, Any, None] = self.admission.admit(str(number), Decimal(worst), Decimal(1), number)
        return asyncio.ensure_future(asked)

    def pay(self, number: int, usd: int) -> None:
        self.purse.spent += usd
        self.admission.record_cost(str(number), Decimal(usd))


def test_a_question_beyond_the_budget_is_refused_and_blocks_nobody() -> None:
    async def run() -> None:
        clips = Clips(0, 1, 2)
        long, other = clips.begin(0, worst=11), clips.begin(1)
        await until_quiet()
        assert isinstance(long.exception(), OverBudget) and other.done() and other.exception() is None
        said = str(long.exception())
        assert "the clip 0 " in said and "$11.0000, and $10.0000 of the budget of $10 is left" in said
        await clips.begin(2, worst=9)  # all that clip 1 leaves
        clips.pay(2, 5)
        with pytest.raises(OverBudget):
            await clips.begin(2, worst=6)  # its next call
        with pytest.raises(OverBudget):
            await clips.begin(99, worst=6)  # a clip that was never announced
        await clips.begin(1, worst=5)

    in_no_time(run())


def test_one_that_waited_while_others_spent_what_it_needs_makes_room() -> None:
    async def run() -> None:
        clips = Clips(0, 1, 2, 3)
        await clips.begin(0)
        long, other = clips.begin(1, worst=10), clips.begin(2)
        await until_quiet()
        assert not long.done() and not other.done(), "what may have room in a moment is not overtaken"
        clips.pay(0, 1)
        await until_quiet()
        assert isinstance(long.exception(), OverBudget) and other.done() and other.exception() is None
        await clips.begin(3)

    in_no_time(run())


def test_once_no_ordinary_question_has_room_the_asking_is_over() -> None:
    async def run() -> None:
        clips = Clips(0, 1, 2)
        clips.purse.spent = Decimal("9.5")
        waiting = [clips.begin(0, worst=11), clips.begin(1)]
        for asked in waiting:
            with pytest.raises(JudgeStopped, match="used up") as end:
                await asked
            assert not isinstance(end.value, OverBudget)

    in_no_time(run())
