"""The examples of docs/extending.md, run unchanged."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nextscene.common.config_loader import from_names, from_tree
from nextscene.curation.config import Rules
from nextscene.curation.rules.registry import RULES
from nextscene.curation.sources.tables import READERS
from nextscene.judge.registry import JUDGES
from nextscene.training.config import RewardConfig
from nextscene.training.recipe import STAGES, Recipe
from nextscene.training.rewards import REWARDS, RewardEntry
from nextscene.training.rewards.base import Candidate
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import CLAUDE, account, judge_budget, loopback, spans
from tests.support import REPOSITORY, SMALL, build_inline, ledger, make_video, problems, run_ffmpeg
from tests.training.objectives.grpo.toys import RL
from tests.training.stages import SMALL as SMALL_STAGE
from tests.training.stages import Stage, by_ranks, on_rank

PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
MAX_LINES = 25


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    yield from loopback(monkeypatch)


def example(file: str) -> dict[str, Any]:
    """Return the names that the example of this file defines."""
    code = re.search(rf"```python\n(# {re.escape(file)}\n.*?)```", PAGE, re.DOTALL)
    assert code, file
    assert len([line for line in code[1].splitlines() if line.strip()]) <= MAX_LINES
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code[1], file, "exec"), names)
    return names


def test_a_source_a_rule_and_a_judge_of_the_page_build_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(READERS, ".lst", example("curation/sources/list.py")["read_list"])  # type: ignore[misc]
    monkeypatch.setitem(RULES, "still", example("curation/rules/still.py")["STILL"])
    monkeypatch.setitem(JUDGES, "local", example("judge/local.py")["LOCAL"])
    make_video(tmp_path / "moving.mp4", 0.5)
    picture = "color=c=gray:size=854x480:rate=16:duration=0.5"
    run_ffmpeg("-f", "lavfi", "-i", picture, "-pix_fmt", "yuv420p", str(tmp_path / "still.mp4"))
    (tmp_path / "clips.lst").write_text("moving.mp4\ta test picture\nstill.mp4\tgray\n")
    config = replace(SMALL, judge="local", rules=Rules(further="still"))
    out = tmp_path / "out"
    summary = build_inline(tmp_path / "clips.lst", out, config)
    rows = {row.source: row for row in ledger(out)}
    assert (rows["still.mp4"].outcome, rows["still.mp4"].reason) == ("rejected", "still")
    kept = rows["moving.mp4"]
    assert (kept.outcome, kept.rounds, kept.judge, kept.judge_model) == ("kept", 2, "local", "local-model")
    assert kept.scene_description == "attempt 2 before a test picture"
    assert summary.method == JUDGES["local"].method
    assert "a model on one machine wrote each scene" in (out / "README.md").read_text()
    assert problems(out, config) == []


def test_the_reward_of_the_page_scores_candidates() -> None:
    reward = example("training/rewards/motion.py")["Motion"].build(None)
    still = torch.zeros(3, 4, 4, 3, dtype=torch.uint8)
    moving = (torch.arange(3) * 10).to(torch.uint8)[:, None, None, None].expand(3, 4, 4, 3)
    tokens = torch.zeros(1, 1)
    reward.ask([Candidate("c", "s", 0, i, tokens, tokens, video, 16.0) for i, video in enumerate((still, moving))])
    assert [verdict.reward for verdict in reward.verdicts()] == [0.0, 1.0] and reward.verdicts() == []


def test_the_reward_and_the_stage_of_the_page_train_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "nextscene.training.rewards.motion"
    motion = ModuleType(module)
    vars(motion).update(example("training/rewards/motion.py"))
    monkeypatch.setitem(sys.modules, module, motion)
    monkeypatch.setitem(REWARDS, "motion", RewardEntry(module, "Motion"))
    assert f'REWARDS["motion"] = RewardEntry("{module}", "Motion")' in PAGE
    rewarded = replace(RL, steps=1, reward=from_names(RewardConfig, {"kind": "motion"}, "recipe"))
    stage = Stage.made(tmp_path, rewarded)
    job = stage.job("rewarded")
    assert by_ranks(1, on_rank, job)[0].reward_last in (0.0, 0.5, 1.0)
    judged = [json.loads(file.read_text())["judged_by"] for file in job.folder.rglob("candidates/*/*.json")]
    assert judged == ["motion"] * 2

    toml = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert toml
    assert '`"polish": "flow_matching",`' in PAGE
    monkeypatch.setitem(STAGES, "polish", "flow_matching")
    polish = from_tree(Recipe, tomllib.loads(toml[1]), "polish.toml")
    assert (polish.name, polish.stage, polish.steps) == ("polish", "polish", 100)
    small = {name: getattr(SMALL_STAGE, name) for name in ("data", "model", "parallel", "logging")}
    summary, observer = by_ranks(1, on_rank, stage.job("polished", replace(polish, steps=2, **small)))
    assert (summary.stage, list(observer.losses)) == ("polish", [1, 2])


@pytest.mark.slow
def test_a_model_that_costs_nothing_is_asked_within_the_least_budget(tmp_path: Path, api: ClaudeApi) -> None:
    budget = judge_budget("0.000001")
    prices = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    free = replace(budget.price, table={}, **dict.fromkeys(prices, Decimal(0)))
    out = tmp_path / "out"
    build_inline(spans(tmp_path, ["a red kite", "a blue boat"]), out, CLAUDE, judge_budget=replace(budget, price=free))
    assert account(out).answers >= 4 and account(out).spent == account(out).lost == 0
    assert all(row.outcome in ("kept", "dropped") and row.usd == 0 for row in ledger(out))
