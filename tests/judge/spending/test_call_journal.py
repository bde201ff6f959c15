"""The journal on a disk that fills up: what was noted is there for the next run, and what was not leaves no trace."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from nextscene.judge.errors import JudgeStopped
from nextscene.judge.spending.call_journal import CallJournal, Pending, recover
from tests.judge.support import answer

PENDING = Pending("k", Decimal("0.5"))


@contextmanager
def room(left: int) -> Iterator[None]:
    """Writing ends after so many bytes, in the midst of a line where that is so."""
    write = os.write

    def limited(handle: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(handle, data[:left])
        left -= done
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", limited)
        yield


@pytest.mark.parametrize("left", [0, 1, 30, 200, 500])
def test_a_line_that_found_no_room_leaves_no_trace_and_spoils_no_later_one(left: int, tmp_path: Path) -> None:
    journal = CallJournal(tmp_path)
    journal.record_sent("a", PENDING)
    with room(left), pytest.raises(JudgeStopped, match="make room there"):
        for number in range(100):
            journal.record_sent(f"b{number}", PENDING)
    journal.record_answer("a", answer("k"))
    journal.close()
    [found] = recover(tmp_path)
    assert found.answers == [answer("k")]
    assert "a" not in found.calls and set(found.calls) == {f"b{number}" for number in range(len(found.calls))}
    assert len(found.calls) == left // len(b'{"sent":"b0","key":"k","worst":"0.5"}\n')


@pytest.mark.parametrize("left", [0, 10, 60])
def test_a_journal_that_cannot_begin_anew_goes_on_as_it_is(
    left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nextscene.judge.spending.call_journal._TRUNCATE_BYTES", 1)
    journal = CallJournal(tmp_path)
    for call in ("a", "b"):
        journal.record_sent(call, PENDING)
    with room(left):
        journal.mark_all_stored()
    journal.record_answer("a", answer("k"))
    journal.close()
    [found] = recover(tmp_path)
    assert (found.answers, found.calls) == ([answer("k")], {"b": PENDING})
    assert len(list(tmp_path.iterdir())) == 1


def test_one_that_begins_anew_keeps_what_has_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextscene.judge.spending.call_journal._TRUNCATE_BYTES", 1)
    journal = CallJournal(tmp_path)
    journal.record_sent("a", PENDING)
    journal.record_stray_answer(answer("stored"))
    journal.mark_all_stored()
    journal.record_settled(Decimal("0.25"))
    journal.close()
    [found] = recover(tmp_path)
    assert (found.answers, found.calls, found.lost) == ([], {"a": PENDING}, Decimal("0.25"))
