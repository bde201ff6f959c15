"""A run's judge: on a leash that ends with the run, with as many units before it as it can be asked about."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextscene.common.errors import RunStopped, UsageError
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage
from nextscene.curation.config import RunLimits
from nextscene.curation.media.probe import Measured
from nextscene.curation.outcome import UNDECIDED, ClipOutcome
from nextscene.curation.plan import PlannedClip, Unit
from nextscene.curation.run.unit_judge import UnitJudge, max_units_waiting
from nextscene.curation.stages.describe import Decision, DescribedScene
from nextscene.curation.stages.unit import Screened
from nextscene.judge.api.api_identity import ApiIdentity
from nextscene.judge.spending.cached_client import CachedClient
from nextscene.shards.format.layout import ShardName, UnitName
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.claude_api import Limits as Pace
from tests.fakes.loopback import CLAUDE, account, judge_budget, stored
from tests.support import SMALL

CLIP = Screened(Measured(False, 854, 480, 1.0, "AVC"))


@pytest.fixture
def out(tmp_path: Path) -> Storage:
    return Storage.at(tmp_path / "out")


def unit(*captions: str, index: int = 0, revision: int = 0, split: str = "train") -> Unit:
    shard = ShardName(split, index // 2, revision)
    clips = tuple(
        PlannedClip(
            i,
            f"{index:08d}{i:08d}",
            split,
            index,
            shard.index,
            "",
            f"{i}.mp4",
            "",
            f"{i}.mp4",
            0,
            -1,
            caption,
            "",
            0,
            0,
            0,
            0,
        )
        for i, caption in enumerate(captions)
    )
    return Unit(UnitName(split, index, revision), shard, clips)


def decide(out: Storage, *units: Unit, **changes: object) -> list[Decision]:
    """What becomes of units that are asked about at once, in a run whose lock is held."""
    config = replace(CLAUDE, **changes)  # type: ignore[arg-type]

    async def all_of_them() -> list[Decision]:
        asked = UnitJudge(config, judge_budget(), out, "r")
        try:
            return await asyncio.gather(*(asked.decide(one, [CLIP] * len(one.clips)) for one in units))
        finally:
            await asked.end()

    with hold_lock(out, "r"):
        return asyncio.run(all_of_them())


def test_a_judge_whose_run_is_gone_sends_nothing(out: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with ClaudeApi() as api:
        for name, value in api.env.items():
            monkeypatch.setenv(name, value)

        async def asked() -> Decision:
            judge = UnitJudge(CLAUDE, judge_budget(), out, "r")
            try:
                return await judge.decide(unit("a", "b"), [CLIP, CLIP])
            finally:
                await judge.end()

        decision = asyncio.run(asked())
        assert decision.scenes == [UNDECIDED, UNDECIDED]
        assert isinstance(decision.end, RunStopped) and "its lock is gone" in str(decision.end)
        assert api.exchanges == []


# ---- how a unit is decided -------------------------------------------------------------------------------------


def test_what_did_not_pass_the_screen_is_not_asked_about(out: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with ClaudeApi() as api, hold_lock(out, "r"):
        for name, value in api.env.items():
            monkeypatch.setenv(name, value)

        async def asked() -> Decision:
            judge = UnitJudge(CLAUDE, judge_budget(), out, "r")
            found = [None, ClipOutcome("rejected", "too_small", ""), CLIP, UNDECIDED]
            decision = await judge.decide(unit("a", "b", "c", "d"), found)
            await judge.end()
            return decision

        first, second, third, fourth = asyncio.run(asked()).scenes
        assert (first, second, fourth) == (None, None, UNDECIDED)
        assert isinstance(third, DescribedScene) and third.verdict == "Pass"
        assert len(api.exchanges) == 2


def test_a_stop_is_reported_after_the_answers_in_flight_are_stored(
    out: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stops answering while eight are under way; their answers still come."""
    with ClaudeApi(limits=Pace(latency=0.3)) as api:
        for name, value in api.env.items():
            monkeypatch.setenv(name, value)
        answer, stopped = api.answer, False

        def then_stop(question: object, tier: str) -> dict[str, object]:
            nonlocal stopped
            if not stopped and len(api.paid) >= 9:
                stopped, api.account = True, "spend_limit"
            return answer(question, tier)  # type: ignore[arg-type]

        api.answer = then_stop  # type: ignore[method-assign]
        ends = decide(out, unit(*(f"one {i}" for i in range(12))), unit(*(f"two {i}" for i in range(12)), index=1))
        assert all(isinstance(one.end, RunStopped) and "spend limit" in str(one.end) for one in ends)
        assert len(stored(out.uri)) == len(api.paid) == account(out.uri).answers
        assert account(out.uri).lost == 0


def test_a_unit_asked_about_twice_at_once_is_decided_once(out: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the connection to the first asker broke."""
    openings, opened = [], CachedClient.open

    async def open_counted(*given: Any, **named: Any) -> CachedClient:
        openings.append(given)
        return await opened(*given, **named)

    monkeypatch.setattr(CachedClient, "open", open_counted)
    with ClaudeApi() as api, hold_lock(out, "r"):
        for name, value in api.env.items():
            monkeypatch.setenv(name, value)

        async def asked() -> list[Decision]:
            judge, one = UnitJudge(CLAUDE, judge_budget(), out, "r"), unit("a", "b FAIL1", "c")
            found = await asyncio.gather(*(judge.decide(one, [CLIP] * 3) for _ in range(3)))
            await judge.end()
            return found

        found = asyncio.run(asked())
        assert all(decision == found[0] for decision in found)
        assert [scene.verdict for scene in found[0].scenes if isinstance(scene, DescribedScene)] == ["Pass"] * 3
        assert len(api.exchanges) == 2 + 4 + 2
        assert len(stored(out.uri)) == account(out.uri).answers == 8
        assert len(openings) == 1


def test_a_key_that_is_missing_where_the_judge_runs_is_told_with_the_host(
    out: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    judge = UnitJudge(CLAUDE, judge_budget(), out, "r")
    end = asyncio.run(judge.decide(unit("a"), [CLIP])).end
    assert isinstance(end, UsageError) and "ANTHROPIC_API_KEY is not set" in str(end)
    assert str(end).startswith(f"{socket.gethostname()}: ")


def test_a_wrong_key_is_a_mistake_of_usage_for_every_unit(out: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with ClaudeApi() as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-wrong")
        ends = decide(out, unit("a"), unit("b", index=1))
        assert all(isinstance(one.end, UsageError) for one in ends)
        assert all("does not accept the key" in str(one.end) and "sk-ant-wrong" not in str(one.end) for one in ends)


def test_the_judge_none_needs_no_judge_and_writes_nothing(out: Storage) -> None:
    judge = UnitJudge(SMALL, None, out, "r")
    (scene,) = asyncio.run(judge.decide(unit("a caption"), [CLIP])).scenes
    assert scene == DescribedScene("a caption")
    assert judge.report() is None
    asyncio.run(judge.end())
    assert out.files("", recursive=True) == []


# ---- how much is asked at once ---------------------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(1, 2000), st.integers(1, 200_000), st.booleans(), st.booleans())
def test_enough_units_wait_for_every_call_that_may_be_made_and_not_one_more(
    unit_size: int, calls: int, batch: int, in_batches: bool, pictured: bool
) -> None:
    config = replace(CLAUDE, unit_size=unit_size, limits=RunLimits(calls_at_once=calls, batch_clips=batch))
    clips = unit_size * max_units_waiting(config, judge_budget(in_batches=in_batches), pictured)
    wanted = batch if in_batches else 2 * calls
    wanted = min(wanted, 2000) if pictured else wanted
    assert wanted <= clips < wanted + unit_size
    assert max_units_waiting(config, None, pictured) == 0


# ---- whose key it asks with ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("ANTHROPIC_API_KEY", "another"), ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")]
)
def test_a_node_with_another_key_or_address_of_the_api_asks_nothing(
    out: Storage, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The run has checked its own; the judge's process has what Ray was started with there."""
    with ClaudeApi() as api, hold_lock(out, "r"):
        for variable, its in api.env.items():
            monkeypatch.setenv(variable, its)
        checked = ApiIdentity.current()
        monkeypatch.setenv(name, value)

        async def asked() -> Decision:
            judge = UnitJudge(CLAUDE, judge_budget(), out, "r", checked)
            try:
                return await judge.decide(unit("a"), [CLIP])
            finally:
                await judge.end()

        end = asyncio.run(asked()).end
        assert isinstance(end, UsageError)
        assert all(word in str(end) for word in (f"node {socket.gethostname()}", name, "start Ray there"))
        assert api.exchanges == []
