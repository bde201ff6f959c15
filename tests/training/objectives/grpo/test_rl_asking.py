"""The stage `rl` with the paper's reward: two ranks, a judge behind faults, a worker that is killed, a budget."""

from __future__ import annotations

import json
import os
import signal
import time
from decimal import Decimal
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from nextscene.training.config import RewardConfig
from nextscene.training.distributed.process_group import current_world
from nextscene.training.errors import TrainingPaused
from nextscene.training.job import TrainingJob
from nextscene.training.metrics.log_file import read_metrics
from nextscene.training.rewards.consistency import CausalConsistency
from nextscene.training.trainer import train
from tests.fakes.claude_api import AnswerRules, ClaudeApi, FaultSchedule
from tests.judge.api_support import account, hurry
from tests.training.objectives.grpo.toys import RL
from tests.training.ranks import RankFailed, run
from tests.training.rewards.candidates import SETTINGS
from tests.training.stages import Quiet, make_data, make_job, make_originals, replace

pytestmark = pytest.mark.slow

ASKED = replace(RL, steps=3, reward=RewardConfig(judge=SETTINGS), logging=replace(RL.logging, checkpoint_every=1))
RULES = AnswerRules(pass_rate=0.5, marked={"GARBLED": 0.1, "REFUSE-VERIFY": 0.1})
STORMY = FaultSchedule(rates={"429": 0.1, "529": 0.1, "500": 0.1, "drop-before": 0.1})
UNTIL_ALL_IS_STORED = 2.0


@pytest.fixture
def job(tmp_path: Any) -> TrainingJob:
    return make_job(make_data(tmp_path / "data"), make_originals(tmp_path / "originals"), tmp_path / "disturbed", ASKED)


def asking(rank: int, _world: int, job: TrainingJob, dies_at: int = -1) -> str:
    """How it ended. The second rank is killed as its `dies_at`-th candidates are made, in the middle of a rollout."""
    torch.use_deterministic_algorithms(mode=True)
    asked = 0
    ask = CausalConsistency.ask

    def ask_or_die(reward: CausalConsistency, candidates: Any) -> None:
        nonlocal asked
        asked += 1
        if rank == 1 and asked == dies_at:
            time.sleep(UNTIL_ALL_IS_STORED)
            os.kill(os.getpid(), signal.SIGKILL)
        ask(reward, candidates)

    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        patch.setattr(CausalConsistency, "ask", ask_or_die)
        try:
            return "finished" if train(job, current_world(), Quiet()).finished else "stopped"
        except TrainingPaused as pause:
            return str(pause)


def steps(job: TrainingJob) -> list[dict[str, float]]:
    kept = ("step", "loss", "reward_mean", "missing_judgements", "usd")
    return [{name: line[name] for name in kept} for line in read_metrics(job.folder) if line["event"] == "step"]


def weights(job: TrainingJob) -> dict[str, torch.Tensor]:
    file = job.folder / "whole.pt"
    dcp_to_torch_save(job.checkpoints / f"step-{ASKED.steps}", file)
    found: dict[str, torch.Tensor] = torch.load(file)
    return found


def test_a_worker_killed_in_a_rollout_costs_nothing_and_changes_nothing(api: ClaudeApi, job: TrainingJob) -> None:
    api.rules, api.faults = RULES, STORMY
    a_step = ASKED.policy.group_size // ASKED.policy.batch
    with pytest.raises(RankFailed):
        run(asking, 2, job, a_step + 2, limit=240.0)
    asked_before = len(api.paid)
    assert len(steps(job)) == 1 and asked_before > 0
    assert run(asking, 2, replace(job, resume=True), limit=240.0) == ["finished", "finished"]
    disturbed = len(api.paid)

    undisturbed = replace(job, run=job.run.with_name("undisturbed"))
    assert run(asking, 2, undisturbed, limit=240.0) == ["finished", "finished"]
    assert disturbed == len(api.paid) - disturbed, "no more was paid for than by the undisturbed run"
    # Of the step that was begun again the answers were there already, and cost nothing any more.
    unpriced = [[{**line, "usd": 0.0} for line in steps(one)] for one in (job, undisturbed)]
    assert unpriced[0] == unpriced[1]
    assert sum(line["missing_judgements"] for line in unpriced[0]) > 0
    ours, theirs = weights(job), weights(undisturbed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert account(job.folder).spent == account(undisturbed.folder).spent


def test_a_budget_used_up_in_a_step_keeps_earlier_steps_for_a_larger_budget(api: ClaudeApi, job: TrainingJob) -> None:
    api.rules = RULES
    poor = replace(job, budget=Decimal("0.03"))
    said = run(asking, 2, poor, limit=240.0)
    assert said[0] == said[1] and said[0].startswith("the budget of $0.03 is used up")
    done = len(steps(job))
    assert 0 < done < ASKED.steps
    assert [path.name for path in job.checkpoints.glob("step-*")] == [f"step-{n}" for n in range(1, done + 1)]
    assert account(job.folder).spent <= Decimal("0.03")
    rich = replace(job, budget=Decimal(5), resume=True)
    assert run(asking, 2, rich, limit=240.0) == ["finished", "finished"]
    pages = [json.loads(page.read_text()) for page in job.folder.glob("candidates/step-*/*.json")]
    assert len(pages) == ASKED.steps * ASKED.data.global_batch
    assert {one["model"] for page in pages for one in page["candidates"] if one["reward"] is not None} == {
        SETTINGS.model
    }
