"""Whose turn it is: the one nearest to its end, no slot ever lost, nobody left waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextscene.judge.api.call_queue import CallQueue
from nextscene.judge.api.rate_limiter import TokenBuckets
from nextscene.judge.errors import JudgeStopped
from tests.judge.support import in_no_time, until_quiet


def flow_of(size: int) -> CallQueue:
    """A flow in simulated time, its window wide open from the start."""
    queue = CallQueue(size)
    queue.concurrency.limit = size
    queue.buckets = TokenBuckets(asyncio.get_running_loop().time)
    return queue


@given(st.lists(st.integers(0, 5), max_size=20))
def test_the_lowest_priority_number_goes_first_and_equals_in_order_of_arrival(places: list[int]) -> None:
    async def work() -> None:
        queue = flow_of(1)
        await queue.acquire(9)
        went: list[tuple[int, int]] = []

        async def go(place: int, arrival: int) -> None:
            await queue.acquire(place)
            went.append((place, arrival))
            queue.release()

        async with asyncio.TaskGroup() as group:
            for arrival, place in enumerate(places):
                group.create_task(go(place, arrival))
            await until_quiet()
            assert went == []
            queue.release()
        assert went == sorted((place, arrival) for arrival, place in enumerate(places))

    in_no_time(work())


def test_each_turn_says_how_many_are_under_way_with_it_and_its_number() -> None:
    async def work() -> None:
        queue = flow_of(3)
        turns = [await queue.acquire(0) for _ in range(3)]
        queue.release()
        turns.append(await queue.acquire(0))
        assert [turn.level for turn in turns] == [1, 2, 3, 3]
        assert [turn.serial for turn in turns] == [1, 2, 3, 4]

    in_no_time(work())


@pytest.mark.parametrize(("asked", "held"), [(7.5, 7.5), (119.0, 119.0), (10**9, 120.0), (0.0, 0.0)])
def test_a_pause_holds_everybody_and_no_longer_than_two_minutes(asked: float, held: float) -> None:
    async def work() -> None:
        loop, queue = asyncio.get_running_loop(), flow_of(8)
        queue.pause(asked)
        queue.pause(asked / 2)
        await asyncio.gather(*(queue.acquire(place) for place in range(8)))
        assert loop.time() == pytest.approx(held, abs=0.01)

    in_no_time(work())


def test_a_longer_pause_takes_over_from_one_that_is_waited_for() -> None:
    async def work() -> None:
        loop, queue = asyncio.get_running_loop(), flow_of(2)
        queue.pause(5)
        entering = asyncio.create_task(queue.acquire(0))
        await asyncio.sleep(3)
        queue.pause(10)
        await entering
        assert loop.time() == pytest.approx(13, abs=0.01)

    in_no_time(work())


def test_closing_tells_all_that_wait_and_all_that_come_the_first_reason() -> None:
    async def work() -> None:
        queue = flow_of(2)
        entered = [await queue.acquire(0) for _ in range(2)]
        waiting = [asyncio.create_task(queue.acquire(place)) for place in range(5)]
        await until_quiet()
        waiting[0].cancel()
        first = JudgeStopped("the budget is used up")
        queue.close(first)
        queue.close(JudgeStopped("later"))
        told = await asyncio.gather(*waiting[1:], return_exceptions=True)
        assert told == [first] * 4
        with pytest.raises(JudgeStopped, match="the budget is used up"):
            await queue.acquire(0)
        for _ in entered:
            queue.release()
        assert queue.under_way == 0

    in_no_time(work())


def test_a_turn_that_is_given_at_the_moment_of_a_cancellation_goes_to_the_next() -> None:
    async def work() -> None:
        queue = flow_of(1)
        await queue.acquire(0)
        one, other = (asyncio.create_task(queue.acquire(place)) for place in (1, 2))
        await until_quiet()
        queue.release()
        one.cancel()
        await other
        assert one.cancelled() and queue.under_way == 1

    in_no_time(work())


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "leave", "cancel", "let run", "pause", "sleep"]), st.integers(0, 9), st.booleans()
        ),
        max_size=40,
    ),
    st.booleans(),
)
def test_in_any_order_of_events_no_slot_is_lost_and_none_is_given_twice(
    size: int, events: list[tuple[str, int, bool]], close: bool
) -> None:
    async def work() -> None:
        queue = flow_of(size)
        inside: list[int] = []
        tasks: list[asyncio.Task[Any]] = []

        async def go(place: int) -> None:
            await queue.acquire(place)
            inside.append(place)
            assert len(inside) <= queue.under_way <= size

        for event, number, quiet in events:
            if event == "enter":
                tasks.append(asyncio.create_task(go(number)))
            elif event == "leave" and inside:
                inside.pop()
                queue.release()
            elif event == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif event == "pause":
                queue.pause(number)
            elif event == "sleep":
                await asyncio.sleep(number)
            if quiet or event == "let run":
                await until_quiet()
        if close:
            queue.close(JudgeStopped("over"))
        while not all(task.done() for task in tasks) or inside:
            await asyncio.sleep(1)
            while inside:
                inside.pop()
                queue.release()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(end is None or isinstance(end, JudgeStopped | asyncio.CancelledError) for end in ends)
        assert queue.under_way == 0
        if not close:
            for _ in range(size):
                await asyncio.wait_for(queue.acquire(0), 200)

    in_no_time(work())
