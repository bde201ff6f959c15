"""A budget that cannot decide one clip is refused before anything; where answers are stored, no budget is too small."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest

from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.storage import Storage
from nextscene.curation.run.minimum_budget import check_budget, minimum_budget
from nextscene.judge.config import ClaudeConfig
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import CLAUDE, judge_budget, spans, stored
from tests.support import build_inline, ledger

LEAST = minimum_budget(ClaudeConfig(), judge_budget())
CENT_TENTH = Decimal("0.001")


def test_the_least_budget_is_told_and_enough_and_less_is_refused(api: ClaudeApi, tmp_path: Path) -> None:
    """It was computed from the requests; here the server is asked."""
    out = Storage.at(tmp_path / "out")
    with pytest.raises(UsageError, match=f"give {LEAST:f} at least"):
        check_budget(out, ClaudeConfig(), judge_budget(f"{LEAST - CENT_TENTH:f}"))
    assert not (tmp_path / "out").exists()
    check_budget(out, ClaudeConfig(), judge_budget(f"{LEAST:f}"))
    source = spans(tmp_path, [f"{letter * 120}" for letter in "abcdefgh"])
    with suppress(RunStopped):  # it may be enough for all
        build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget(f"{LEAST:f}"))
    assert len(ledger(tmp_path / "out", CLAUDE)) >= 1


def test_in_batches_it_is_half(api: ClaudeApi) -> None:
    assert 2 * minimum_budget(ClaudeConfig(), judge_budget(in_batches=True)) - LEAST <= CENT_TENTH


def test_a_run_that_needs_no_call_ends_well_with_any_budget(api: ClaudeApi, tmp_path: Path) -> None:
    """All answers are stored, nothing is cut; the budget is below what was spent."""
    source, out = spans(tmp_path, ["a", "b", "c"]), tmp_path / "out"
    build_inline(source, out, CLAUDE, judge_budget=judge_budget())
    fresh = tmp_path / "fresh"
    fresh_place = Storage.at(fresh)
    for path in out.glob("calls/**/*.gz"):
        fresh_place.write(path.relative_to(out).as_posix(), path.read_bytes())
    (fresh / "nextscene.json").write_bytes((out / "nextscene.json").read_bytes())
    asked, tiny = len(api.exchanges), judge_budget("0.000001")
    check_budget(fresh_place, ClaudeConfig(), tiny)
    summary = build_inline(source, fresh, CLAUDE, judge_budget=tiny)
    assert summary.complete and len(api.exchanges) == asked
    assert stored(fresh).keys() == stored(out).keys()


def test_a_run_that_needs_one_call_more_than_it_can_pay_stops(api: ClaudeApi, tmp_path: Path) -> None:
    source, out = spans(tmp_path, ["a", "b"]), tmp_path / "out"
    build_inline(source, out, CLAUDE, judge_budget=judge_budget(), stop_after=1)
    tiny = judge_budget("0.000001")
    check_budget(Storage.at(out), ClaudeConfig(), tiny)
    with pytest.raises(RunStopped, match=r"budget of \$0\.000001 is used up"):
        build_inline(source, out, CLAUDE, judge_budget=tiny)
