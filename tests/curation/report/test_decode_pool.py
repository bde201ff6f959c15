"""A video that kills, hangs or fills its process costs its own picture, and no other."""

from __future__ import annotations

import psutil
import pytest

from nextscene.curation.config import RunLimits
from nextscene.curation.report import decode_pool
from nextscene.curation.report.decode_pool import decode_all
from nextscene.curation.report.filmstrips import Filmstrip, FilmstripTask
from tests.curation.report.tasks import Deadly, Endless, Good, Greedy

pytestmark = pytest.mark.slow


def test_a_strip_stands_where_its_task_stood_and_no_process_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "_SLACK_SECONDS", 0.0)
    tasks: list[FilmstripTask] = [Good("a"), Deadly(), Good("b"), Endless(), Good("c"), Greedy(), Good("d"), Good("e")]
    strips = decode_all(tasks, RunLimits(clip_seconds=3.0))
    for place, name in ((0, b"a"), (2, b"b"), (4, b"c"), (6, b"d"), (7, b"e")):
        assert strips[place] == Filmstrip((name,))
    assert strips[1].missing == "it killed the process that decoded it"
    assert strips[3].missing == "decoding took too long"
    assert strips[5].missing == "it takes more memory than a clip may"
    assert not any(decode_pool.__file__ in process.cmdline() for process in psutil.Process().children())


def test_nothing_to_make_starts_nothing() -> None:
    assert decode_all([], RunLimits()) == []
