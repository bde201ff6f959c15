"""train.py: a mistake is one line that names the thing, a stopped run continues, every end has its exit code."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from nextscene.common import lease, run_lock
from nextscene.common.fence import LOCK
from nextscene.common.lease import Holder
from nextscene.common.process_identity import ProcessIdentity
from nextscene.common.storage import Storage
from nextscene.pipelines import encode_latents
from nextscene.pipelines.cli.step_progress import StepProgress
from nextscene.pipelines.train import main
from nextscene.shards.format.folder_mark import RUN, claim
from nextscene.shards.format.layout import ShardName
from nextscene.training.checkpoint_info import latest
from nextscene.training.metrics.log_file import read_metrics
from nextscene.training.model.pretrained import PretrainedModels
from tests.command import Place
from tests.shards.clips import clip
from tests.shards.samples import sample_of, seal_dataset
from tests.training.stages import make_data, make_originals

RECIPE = """
name = "connector"
stage = "connector"
trainable = ["bridge.*"]
steps = 2

[[mix]]
text = "caption"
prompt = "t2v"

[data]
micro_batch = 1
global_batch = 2
max_frames = 9
width = 32
height = 24
workers = 0

[model]
queries = 4
max_tokens = 256

[parallel]
precision = "fp32"
checkpointing = "none"
compile = false

[logging]
evaluate_clips = 0
"""


@dataclass(frozen=True)
class Given:
    """All that a command names, and an --out of its own."""

    data: Path
    originals: PretrainedModels
    recipe: Path
    out: Path

    def flags(self, *more: str) -> list[str]:
        """Of a flag that is given twice, the last counts; --data is told apart, since each of them does."""
        data = [] if "--data" in more else ["--data", str(self.data)]
        return [
            "--stage",
            "connector",
            "--recipe",
            str(self.recipe),
            "--qwen",
            str(self.originals.qwen),
            "--ltx",
            str(self.originals.ltx),
            "--out",
            str(self.out),
            *data,
            *more,
        ]

    def run(self, *more: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of the command, in this process; it must end by itself, not by an exception."""
        result = CliRunner().invoke(main, self.flags(*more))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result.exit_code, result.stdout, result.stderr

    def error(self, code: int, *more: str) -> str:
        """The one line with which it ends."""
        ended, stdout, stderr = self.run(*more)
        assert (ended, stdout) == (code, ""), stderr
        assert "Traceback" not in stderr
        (line,) = [line for line in stderr.splitlines() if line.lower().startswith("error: ")]
        return line

    @property
    def losses(self) -> list[tuple[int, float]]:
        """Of each step, with its number."""
        return [
            (line["step"], line["loss"]) for line in read_metrics(self.out / "connector") if line["event"] == "step"
        ]

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.losses]

    @property
    def checkpoints(self) -> Path:
        return self.out / "connector" / "checkpoints"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Given:
    folder = tmp_path_factory.mktemp("made")
    (folder / "recipe.toml").write_text(RECIPE)
    data, originals = make_data(folder / "data"), make_originals(folder / "originals")
    return Given(data, originals, folder / "recipe.toml", folder / "out")


@pytest.fixture
def given(made: Given, tmp_path: Path) -> Given:
    return Given(made.data, made.originals, made.recipe, tmp_path / "out")


LATER = ["--stage", "generator", "--recipe", "generator-2"]
LATER += [word for name in ("blip3o", "vidgen", "openvid", "opens2v") for word in ("--data", f"{name}=/nowhere")]


# ---- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data", "/nowhere"], ["/nowhere"]),
        (["--data", "film=/nowhere"], ["'data'", "--data data=OUT"]),
        (["--data", "data=a", "--data", "data=b"], ["--data data", "twice"]),
        (["--qwen", "/nowhere"], ["--qwen /nowhere", "config.json"]),
        (["--ltx", "/nowhere"], ["--ltx /nowhere", "transformer"]),
        (["--recipe", "huge"], ["--recipe huge", "connector, generator-2, generator-3, rl, sft, shapes, tiny"]),
        (["--stage", "sft"], ["--stage sft", "connector"]),
        (LATER, ["generator-2", "connector", "not finished", "train that first", "--init"]),
        ([*LATER, "--init", "previous"], ["connector", "not finished"]),
        ([*LATER, "--data", "a"], ["--data a", "blip3o=a"]),
        (["--init", "previous"], ["--init previous", "follows no other"]),
        (["--init", "/nowhere"], ["/nowhere is not a complete checkpoint"]),
        (["--data.global-batch", "14"], ["13 samples", "global batch of 14", "data.global_batch"]),
        (["--data.micro-batch", "3"], ["--data.global-batch 2", "data.micro_batch 3"]),
        (["--data.width", "30"], ["30×24", "multiples of 4", "data.width"]),
        (["--data.max-frames", "8"], ["max_frames 8", "data.max_frames"]),
        (["--workers", "2"], ["--workers", "--launcher ray", "torchrun"]),
        (["--optimizer.kind", "sgd"], ["'sgd'", "prodigy"]),
        (["--optimizer.lr", "-1"], ["optimizer.lr", "at least 0"]),
        (["--optimizer.lr", "1e38"], ["optimizer.lr", "1e+30"]),
        (["--seed", "99999999999999999999"], ["seed must not be above"]),
        (["--model.max-tokens", "16"], ["alone has", "model.max_tokens less model.queries leaves"]),
        (["--out", "s3://b/x"], ["s3://b/x is not a local path"]),
        (["--parallel.replicas", "2"], ["parallel.replicas 2", "1 processes"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_usage_is_told_in_a_line_before_anything_is_written(
    given: Given, flags: list[str], words: list[str]
) -> None:
    line = given.error(2, *flags)
    assert [word for word in words if word not in line] == [], line
    assert not given.out.exists()


def test_an_unknown_key_of_a_recipe_is_told_with_the_nearest(given: Given, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(RECIPE.replace("global_batch", "globalbatch"))
    line = given.error(2, "--recipe", str(tmp_path / "mine.toml"))
    assert "mine.toml" in line and "'data.globalbatch'" in line and "is 'data.global_batch' meant?" in line


def test_a_pattern_that_matches_nothing_is_told(given: Given, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(RECIPE.replace("bridge.*", "connector.*"))
    line = given.error(2, "--recipe", str(tmp_path / "mine.toml"))
    assert "'connector.*' matches no parameter" in line and "bridge.connector" in line


@pytest.mark.parametrize(
    ("name", "words"),
    [("", ["--latents ", "do not fit the dataset 'data'", "there are none"]), ("film=", ["--latents film", "--data"])],
)
def test_latents_that_are_not_there_are_told(given: Given, tmp_path: Path, name: str, words: list[str]) -> None:
    line = given.error(2, "--latents", f"{name}{tmp_path / 'nowhere'}")
    assert [word for word in words if word not in line] == [], line


# ---- a run ------------------------------------------------------------------------------------------------------


def test_a_run_tells_what_it_trains_and_what_it_came_to_and_is_not_written_over(given: Given) -> None:
    code, stdout, stderr = given.run()
    assert code == 0, stderr
    assert "connector, 2 steps" in stdout and str(given.out / "export") in stdout
    assert "2,273 parameters are trained" in stderr and "encoded as they are read" in stderr
    assert "bridge.connector.into.weight 32×32" in (given.out / "connector/trained_parameters.txt").read_text()
    assert (given.out / "report.html").is_file() and f"report    {given.out / 'report.html'}" in stdout
    assert given.steps == [1, 2]
    assert "holds a run at step-2; continue with --resume" in given.error(2)
    assert given.run("--resume")[:2] == (0, stdout)
    assert given.steps == [1, 2]


def test_latents_of_a_read_only_dataset_lie_elsewhere_and_misfits_are_named(given: Given, tmp_path: Path) -> None:
    data, elsewhere = shutil.copytree(given.data, tmp_path / "data"), str(tmp_path / "latents")
    flags = ["--data", str(data), "--ltx", str(given.originals.ltx), "--size", "32x24", "--max-frames", "9"]
    ended = CliRunner().invoke(encode_latents.main, [*flags, "--latents", elsewhere])
    assert ended.exit_code == 0, ended.stderr
    assert not (data / "latents").exists() and f"--latents {elsewhere}" in ended.stdout
    code, _, stderr = given.run("--latents", elsewhere)
    assert code == 0 and "data from latents" in stderr, stderr

    longer = ["--data.max-frames", "17", "--out", str(tmp_path / "longer")]
    why = "they have at most 9 frames, not 17"
    assert why in given.error(2, "--latents", f"data={elsewhere}", *longer)
    shutil.copytree(elsewhere, data / "latents" / "0123456789abcdef")
    code, _, stderr = given.run("--data", str(data), *longer)
    assert code == 0 and f"the latents of the dataset 'data' do not fit: {why}" in stderr, stderr
    assert "encoded as they are read" in stderr


def test_a_loss_that_is_not_a_number_stops_the_run_with_what_to_do(given: Given) -> None:
    line = given.error(3, "--steps", "9", "--optimizer.kind", "adamw", "--optimizer.lr", "1e20")
    assert "a loss of nan" in line and "the training has diverged" in line
    assert "optimizer.lr" in line and "continue from the beginning" in line
    assert len(given.steps) < 9 and latest(given.checkpoints) is None


def test_a_clip_that_is_damaged_is_named(given: Given, tmp_path: Path) -> None:
    bad = sample_of(clip(0, 9).record, b"no video at all", "scene")
    seal_dataset(tmp_path / "bad", {ShardName("train", 0): [bad, clip(1, 9)]})
    line = given.error(1, "--data", str(tmp_path / "bad"))
    assert bad.key in line


@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGINT], 130), ([signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM], 3), ([signal.SIGHUP], 3)],
    ids=["Ctrl-C", "Slurm warns, then ends all, and so does torchrun", "a terminal that is closed"],
)
def test_a_run_that_is_interrupted_leaves_a_checkpoint_and_goes_on(
    given: Given, monkeypatch: pytest.MonkeyPatch, signals: list[signal.Signals], code: int
) -> None:
    step = StepProgress.step

    def interrupted(watch: StepProgress, number: int, numbers: Mapping[str, float]) -> None:
        step(watch, number, numbers)
        if number == 2:
            for signum in signals:
                signal.raise_signal(signum)

    with monkeypatch.context() as patch:
        patch.setattr(StepProgress, "step", interrupted)
        ended, stdout, stderr = given.run("--steps", "9", "--logging.checkpoint-every", "0")
    assert (ended, stdout) == (code, ""), stderr
    assert "stopped at step 2 of 9; continue with --resume" in stderr
    assert given.steps == [1, 2]
    assert latest(given.checkpoints) == given.checkpoints / "step-2"
    assert not (given.out / "export").exists()
    ended, _, stderr = given.run("--resume", "--steps", "3")
    assert ended == 0, stderr
    assert given.steps == [1, 2, 3]
    assert (given.out / "export" / "model_index.json").exists()


def test_a_run_that_is_told_to_stop_before_its_first_step_takes_none(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(watch: StepProgress, _steps: int, _done: int) -> None:
        watch.stop("somebody")

    with monkeypatch.context() as patch:
        patch.setattr(StepProgress, "begin", told)
        code, _, stderr = given.run()
    assert code == 3
    assert "stopped at step 0 of 2; continue with --resume" in stderr
    assert given.steps == []


def test_processes_restarted_by_torchrun_continue_their_run(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "lost one")
    assert given.run("--steps", "1")[0] == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert "holds a run at step-1; continue with --resume" in given.error(2, "--steps", "2")
    assert given.run("--steps", "2", "--resume")[0] == 0
    assert given.steps == [1, 2]


def test_a_run_whose_torchrun_was_killed_ends_with_a_checkpoint(
    given: Given, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    step = StepProgress.step

    def orphaned(watch: StepProgress, number: int, numbers: Mapping[str, float]) -> None:
        step(watch, number, numbers)
        if number == 2:
            monkeypatch.setattr(os, "getppid", lambda: 1)

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "killed")
    monkeypatch.setattr(StepProgress, "step", orphaned)
    assert given.run("--steps", "9")[0] == 3
    assert capfd.readouterr().err.count("torchrun has ended: stopping with a checkpoint") == 1
    assert latest(given.checkpoints) == given.checkpoints / "step-2"


def test_tasks_of_srun_that_do_not_know_each_other_are_refused(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    line = given.error(2)
    assert "srun started 4 processes" in line and "torchrun" in line
    assert not given.out.exists()


def test_the_lock_of_a_pod_that_was_killed_is_waited_for(
    given: Given, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pod's process cannot be seen from another: only its heartbeat tells whether it lives."""
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.3)
    monkeypatch.setattr(run_lock, "_POLL_SECONDS", 0.1)
    given.out.mkdir()
    place = claim(Storage.at(given.out), RUN)
    place.write(LOCK, Holder("dead", ProcessIdentity("pod-1", 7, "boot", "pid:[1]", "time:[1]", "5")).to_bytes())
    code, _, stderr = given.run("--steps", "1")
    assert code == 0, stderr
    assert "a run on pod-1, process 7, holds its lock; waiting up to 90 s" in caplog.text


def test_a_stop_for_a_reason_is_not_undone_by_torchruns_restart(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    diverging = ["--steps", "9", "--optimizer.kind", "adamw", "--optimizer.lr", "1e20"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    line = given.error(3, *diverging)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert given.error(3, "--resume").startswith(line)


@pytest.mark.slow
def test_torchrun_stopped_by_a_signal_has_learned_what_one_process_learns(given: Given, here: Place) -> None:
    """One of its processes is told, alone: both stop at one step, and are not started again. One process continues."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    flags = given.flags("--steps", "10000", "--logging.checkpoint-every", "0", "--resume")
    with here.start(sys.executable, *launcher, "pipelines/train.py", *flags) as command:
        command.until(lambda: len(given.steps) >= 2)
        ranks = psutil.Process(command.pid).children()
        next(rank for rank in ranks if rank.environ()["RANK"] == "1").send_signal(signal.SIGUSR1)
        ended = command.wait()
        assert command.left_behind() == []
    done = given.steps[-1]
    assert ended.code == 1
    assert ended.stderr.count(f"stopped at step {done} of 10000; continue with --resume") == 1, ended.stderr
    # Twice, unless torchrun ends the second process for the end of the first.
    assert ended.stderr.count("the one by torchrun ends at once") in (1, 2), ended.stderr
    assert latest(given.checkpoints) == given.checkpoints / f"step-{done}"
    assert given.run("--resume", "--steps", str(done + 1))[0] == 0
    together = given.losses
    shutil.rmtree(given.out)
    assert given.run("--steps", str(done + 1))[0] == 0
    assert dict(together) == pytest.approx(dict(given.losses), abs=1e-5)


def test_prompts_of_ones_own_are_read_before_a_model_is_and_drawn(given: Given, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n")
    assert "--sample-prompts" in given.error(2, "--sample-prompts", str(prompts))
    prompts.write_text("A glass wobbles.\nA dog barks.\n")
    code, _, stderr = given.run("--sample-prompts", str(prompts))
    assert code == 0, stderr
    assert len([*(given.out / "connector/samples/step-2").glob("prompt-*.mp4")]) == 2


def test_without_the_package_of_wandb_a_run_is_refused_before_a_model_is_loaded(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nextscene.training.metrics.wandb_log.find_spec", lambda _: None)
    line = given.error(2, "--logging.wandb", "a-project")
    assert "--logging.wandb a-project: the package wandb is not installed" in line
    assert not given.out.exists()


def test_a_run_is_logged_to_wandb_offline(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, _, stderr = given.run("--logging.wandb", "a-project")
    assert code == 0 and "wandb:" not in stderr, stderr
    assert len([*(given.out / "connector/wandb").glob("offline-run-*/*.wandb")]) == 1
