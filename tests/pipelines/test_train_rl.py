"""train.py --stage rl: what it costs is bounded, and each way to end is one line and a code."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage
from nextscene.pipelines.train import main
from nextscene.shards.format.layout import ShardName
from nextscene.training.checkpoint_info import latest
from nextscene.training.metrics.log_file import read_metrics
from nextscene.training.model.pretrained import PretrainedModels
from nextscene.training.rewards.base import Candidate
from nextscene.training.rewards.consistency import CausalConsistency
from tests.fakes.claude_api import AnswerRules, ClaudeApi, Limits
from tests.judge import api_support
from tests.judge.api_support import account
from tests.shards.clips import clip
from tests.shards.samples import sample_of, seal_dataset
from tests.training.stages import make_data, make_originals

pytestmark = pytest.mark.slow

RECIPE = """
name = "rl"
stage = "rl"
steps = 3

[[mix]]
text = "scene"

[data]
micro_batch = 1
global_batch = 1
max_frames = 9
width = 32
height = 24
workers = 0

[model]
queries = 4
max_tokens = 256

[optimizer]
kind = "adamw"
lr = 1e-3
ema = 0.0

[policy]
group_size = 4
best_of = 2
batch = 2
steps = 3

[reward.judge]
frames = 2

[parallel]
precision = "fp32"
checkpointing = "none"
compile = false

[logging]
evaluate_clips = 0
"""


@dataclass(frozen=True)
class Given:
    data: Path
    originals: PretrainedModels
    folder: Path

    def run(self, *more: str) -> tuple[int, str, str]:
        recipe = self.folder / "recipe.toml"
        recipe.write_text(RECIPE)
        flags = [
            "--stage",
            "rl",
            "--recipe",
            str(recipe),
            "--data",
            str(self.data),
            "--out",
            str(self.folder / "out"),
            "--qwen",
            str(self.originals.qwen),
            "--ltx",
            str(self.originals.ltx),
            *more,
        ]
        result = CliRunner(env={"COLUMNS": "200"}).invoke(main, flags)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result.exit_code, result.stdout, result.stderr

    def error(self, code: int, *more: str) -> str:
        ended, _, stderr = self.run(*more)
        assert ended == code, stderr
        (line,) = [line for line in stderr.splitlines() if line.lower().startswith("error: ")]
        return line

    @property
    def rl(self) -> Path:
        return self.folder / "out" / "rl"

    @property
    def steps(self) -> list[int]:
        return [line["step"] for line in read_metrics(self.rl) if line["event"] == "step"]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(make_data(tmp_path / "data"), make_originals(tmp_path / "originals"), tmp_path)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    api_support.hurry(monkeypatch)
    with ClaudeApi(rules=AnswerRules(pass_rate=0.5)) as api:
        api_support.reach(monkeypatch, api)
        yield api


def test_the_budget_stops_it_with_a_checkpoint_and_a_larger_one_goes_on(given: Given, api: ClaudeApi) -> None:
    line = given.error(3, "--budget-usd", "0.021")
    assert "the budget of $0.021 is used up" in line and "--budget-usd" in line
    done = given.steps
    newest = latest(given.rl / "checkpoints")
    assert (newest and newest.name) == (f"step-{len(done)}" if done else None)
    code, stdout, stderr = given.run("--budget-usd", "5", "--resume")
    assert code == 0, stderr
    assert given.steps == [1, 2, 3]
    assert "reward" in stdout
    assert (
        sum(line["usd"] for line in read_metrics(given.rl) if line["event"] == "step")
        <= float(account(given.rl).spent) + 1e-9
    )


def test_a_signal_while_waiting_for_verdicts_drops_the_step_without_double_cost(
    given: Given, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second step, of whose answers some are there."""
    ask = CausalConsistency.ask

    def slow(reward: CausalConsistency, candidates: Sequence[Candidate]) -> None:
        api.limits = Limits(latency=1.0 if given.steps == [1] and candidates[0].number else 0.0)
        ask(reward, candidates)

    wait = CausalConsistency._wait

    def interrupted(reward: CausalConsistency) -> None:
        if given.steps == [1]:
            signal.raise_signal(signal.SIGTERM)
        wait(reward)

    with monkeypatch.context() as patch:
        patch.setattr(CausalConsistency, "ask", slow)
        patch.setattr(CausalConsistency, "_wait", interrupted)
        code, _, stderr = given.run("--logging.checkpoint-every", "0")
    assert code == 3, stderr
    assert "stopped at step 1 of 3; continue with --resume" in stderr
    assert latest(given.rl / "checkpoints") == given.rl / "checkpoints" / "step-1"
    before, api.limits = len(api.paid), Limits()
    assert given.run("--resume")[0] == 0
    assert given.steps == [1, 2, 3]
    assert len(set(api.paid)) == len(api.paid) > before
    assert account(given.rl).lost == 0


def test_without_a_key_it_ends_before_anything_is_trained(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    line = given.error(2)
    assert line.endswith("is not set; set it, or train with --reward.kind retrieval")
    assert not given.rl.exists()
    code, stdout, stderr = given.run("--reward.kind", "retrieval", "--steps", "1")
    assert code == 0, stderr
    assert "reward" in stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--budget-usd", "3", "--reward.kind", "retrieval"], "--budget-usd: only the reward causal_consistency"),
        (["--budget-usd", "nan"], "is not an amount of money"),
        (["--budget-usd", "0"], "0.0 is not in the range x>0"),
        (["--prices", "RECIPE"], "recipe.toml is not a table of prices"),
        (["--judge-model", "claude-sonnet-9"], "its prices in a file of your own (--prices FILE)"),
        (["--policy.group-size", "1"], "must be at least 2"),
        (["--policy.best-of", "3"], "must be even"),
        (["--policy.best-of", "8"], "at most policy.group_size 4"),
        (["--judge-model", "claude-3-7-sonnet-20250219"], "was retired on 2026-02-19"),
        (["--reward.captioner", "qwen"], "cannot be shown pictures"),
        (["--launcher", "ray", "--workers", "5"], "cannot be shared evenly by 5 processes; use 1 processes"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(given: Given, api: ClaudeApi, flags: list[str], said: str) -> None:
    recipe = given.folder / "recipe.toml"
    recipe.touch()
    assert said in given.error(2, *(flag.replace("RECIPE", str(recipe)) for flag in flags))
    assert not api.exchanges


def test_a_key_that_is_none_is_told_as_wrong_usage(
    given: Given, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the models are opened."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "of-another-account")
    with monkeypatch.context() as patch:
        patch.setattr(PretrainedModels, "language", None)
        line = given.error(2)
    assert "does not accept the key" in line and "of-another-account" not in line
    assert api.paid == [] and not given.rl.exists()


def test_clips_without_a_scene_before_them_are_refused(given: Given, api: ClaudeApi) -> None:
    clips = [clip(number, 9) for number in range(4)]
    without = [sample_of(replace(one.record, scene_description=""), one.media, one.record.caption) for one in clips]
    seal_dataset(given.folder / "none", {ShardName("train", 0): without})
    assert "have no scenes" in replace(given, data=given.folder / "none").error(2)
    assert not api.exchanges


@pytest.mark.parametrize(("out", "told"), [("data", "lies inside --data"), ("recipe.toml", "is a file")])
def test_a_training_goes_into_a_folder_of_its_own(given: Given, api: ClaudeApi, out: str, told: str) -> None:
    assert told in given.error(2, "--out", str(given.folder / out))
    assert not api.exchanges


def test_a_second_training_into_the_same_folder_is_refused(given: Given, api: ClaudeApi) -> None:
    given.rl.mkdir(parents=True)
    with hold_lock(Storage.at(given.rl.parent), "another"):
        assert "is at work there" in given.error(3)
    assert not api.exchanges
