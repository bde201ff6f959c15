"""Reading ahead: in order, a bounded number at once, and the first error where it belongs."""

from __future__ import annotations

import threading
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common.prefetch import prefetch_map


@given(st.lists(st.integers(), max_size=100))
def test_it_is_map(items: list[int]) -> None:
    assert list(prefetch_map(lambda item: item * 2, items)) == [item * 2 for item in items]


def test_sixteen_are_read_at_once_and_no_more() -> None:
    together = threading.Barrier(16, timeout=30)
    assert list(prefetch_map(lambda _: together.wait() >= 0, range(16))) == [True] * 16


def test_an_endless_supply_is_read_no_further_than_is_taken() -> None:
    begun: list[int] = []
    found = prefetch_map(lambda item: begun.append(item) or item, count())  # type: ignore[func-returns-value]
    assert list(islice(found, 5)) == [0, 1, 2, 3, 4]
    found.close()  # type: ignore[attr-defined]
    assert len(begun) <= 5 + 16


def test_an_error_comes_in_its_turn() -> None:
    found = prefetch_map(lambda item: 10 // item, [5, 2, 0, 1])
    assert [next(found), next(found)] == [2, 5]
    with pytest.raises(ZeroDivisionError):
        next(found)
