"""The thread that writes pages: training never waits for it, and no failure of it ends a run."""

from __future__ import annotations

import threading

from nextscene.training.report.page_thread import PageThread


def test_a_page_is_written_beside_training_and_once_more_at_the_end() -> None:
    may_write, written = threading.Event(), []

    def write() -> None:
        assert may_write.wait(30)
        written.append(threading.current_thread().name)

    thread = PageThread(write)
    for _ in range(3):
        thread.submit()
    assert written == []
    may_write.set()
    assert thread.finish() == ""
    assert len(written) == 2 and all(name.startswith("run-page") for name in written)


def test_a_failure_is_returned_at_the_end() -> None:
    def write() -> None:
        raise ValueError("no page\nat all")

    thread = PageThread(write)
    thread.submit()
    assert thread.finish() == "no page"
