"""Files that are replaced while they are read are listed again; one that is gone is an error at once."""

from __future__ import annotations

import pytest

from nextscene.common.consistent_read import read_consistently


def test_a_list_that_changed_is_read_again() -> None:
    lists = iter([1, 2, 2, 2])

    def read(listed: int) -> str:
        if listed == 1:
            raise FileNotFoundError("moved")
        return "whole"

    assert read_consistently(lambda: next(lists), read) == "whole"


def test_a_missing_file_of_an_unchanged_list_is_an_error_at_once() -> None:
    reads: list[int] = []

    def read(listed: int) -> None:
        reads.append(listed)
        raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):
        read_consistently(lambda: 1, read)
    assert reads == [1]


def test_a_list_that_always_changes_is_read_five_times() -> None:
    numbers, reads = iter(range(100)), list[int]()

    def read(listed: int) -> None:
        reads.append(listed)
        raise FileNotFoundError("moved")

    with pytest.raises(FileNotFoundError):
        read_consistently(lambda: next(numbers), read)
    assert len(reads) == 5
