"""A stage on a Ray of its own learns what one process does, also when a worker, and then Ray itself, is killed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from nextscene.training.checkpoint_info import latest
from nextscene.training.metrics.log_file import read_metrics
from nextscene.training.recipe import Recipe
from nextscene.training.summary import StageSummary
from tests.command import Command, Place, place
from tests.training.stages import SMALL, by_ranks, make_data, make_job, make_originals, on_rank, replace

pytestmark = pytest.mark.slow
RECIPE = replace(
    SMALL,
    name="connector",
    stage="connector",
    trainable=("bridge.*",),
    steps=8,
    logging=replace(SMALL.logging, checkpoint_every=2, evaluate_clips=0),
)


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as here:
        yield here


def toml(recipe: Recipe) -> str:
    """What of RECIPE is not a recipe's default."""
    return f"""
name = "{recipe.name}"
stage = "{recipe.stage}"
trainable = ["bridge.*"]
steps = {recipe.steps}
mix = [{{ text = "caption", prompt = "t2v" }}]
data = {{ micro_batch = 1, global_batch = 4, max_frames = 9, width = 32, height = 24, workers = 0 }}
model = {{ queries = 4, max_tokens = 256 }}
objective = {{ dropout = 0.25 }}
optimizer = {{ ema = 0.9 }}
parallel = {{ precision = "fp32", checkpointing = "none", compile = false }}
logging = {{ checkpoint_every = 2, evaluate_clips = 0 }}
"""


def steps(folder: Path) -> dict[int, float]:
    lines = [line for line in read_metrics(folder) if line["event"] == "step"]
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    return {line["step"]: line["loss"] for line in lines}


def named(name: str, command: Command) -> list[psutil.Process]:
    """Its processes that Ray has given this name."""
    found = []
    for process in psutil.Process(command.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if name in "".join(process.cmdline()[:1]):
                found.append(process)
    return found


@contextmanager
def another_ray(here: Place) -> Iterator[None]:
    """What Ray takes for one when it looks for clusters on its machine."""
    raylet = here.root / "raylet"
    raylet.symlink_to("/bin/sh")
    with here.start(str(raylet), "-c", "sleep 3600; exit", "--gcs-address=127.0.0.1:1"):
        yield


def test_a_killed_worker_is_replaced_and_after_a_death_of_ray_the_run_resumes(here: Place, tmp_path: Path) -> None:
    """Nothing of what is learned changes by that."""
    data, pretrained = make_data(tmp_path / "data"), make_originals(tmp_path / "originals")
    (tmp_path / "recipe.toml").write_text(toml(RECIPE))
    folder = tmp_path / "out" / RECIPE.name
    train = [
        sys.executable,
        "pipelines/train.py",
        "--stage",
        "connector",
        "--recipe",
        str(tmp_path / "recipe.toml"),
        "--data",
        str(data),
        "--out",
        str(folder.parent),
        "--qwen",
        str(pretrained.qwen),
        "--ltx",
        str(pretrained.ltx),
        "--launcher",
        "ray",
    ]
    with another_ray(here), here.start(*train, "--workers", "2", "--steps", "100000") as command:
        command.until(lambda: len(steps(folder)) >= 3 and latest(folder / "checkpoints") is not None)
        _, victim = named("RayTrainWorker", command)
        victim.kill()
        victim.wait()
        died_at = max(steps(folder))
        command.until(lambda: len(steps(folder)) > died_at + 2)
        command.until(lambda: re.search(r"beginning with \S*step-\d", command.stderr) is not None)
        (gcs,) = named("gcs_server", command)
        gcs.kill()
        ended = command.wait()
        assert command.left_behind() == []
    assert ended.code == 3, ended.stderr
    ours = [line for line in ended.stderr.splitlines() if not line.startswith("\x1b")]  # the others tell of the worker
    assert ours[-2] == f"error: Ray's GCS server (process {gcs.pid}) died"
    assert "--resume" in ours[-1]
    assert not any("Traceback" in line for line in ours), ended.stderr
    assert "PlacementGroupCleaner" not in ended.stderr
    newest = latest(folder / "checkpoints")
    assert newest is not None

    done = max(steps(folder))
    count = done + 2
    with here.start(*train, "--steps", str(count), "--resume") as command:
        command.until(lambda: max(steps(folder)) > done)
        ended = command.wait()
        assert command.left_behind() == []
    assert ended.code == 0, ended.stderr
    assert f"connector, {count} steps" in ended.stdout
    assert newest.name in ended.stderr
    summary = StageSummary.read(folder)
    assert summary is not None and summary.finished

    undisturbed = make_job(data, pretrained, tmp_path / "undisturbed", replace(RECIPE, steps=count))
    by_ranks(1, on_rank, undisturbed)
    assert steps(folder) == pytest.approx(steps(undisturbed.folder), abs=1e-5)
