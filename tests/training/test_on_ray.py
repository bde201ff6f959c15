"""A stage on a Ray of its own: two workers learn what one process does, also when one of them is killed on the way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.command import Command, Place, place
from tests.training.ranks import run
from tests.training.stages import SMALL, make_data, make_job, make_originals, on_rank, replace
from training.journal import entries
from training.recipe import Recipe
from training.summary import Summary

pytestmark = pytest.mark.slow

STEPS = 8
RECIPE = replace(
    SMALL,
    name="connector",
    stage="connector",
    trainable=("bridge.*",),
    steps=STEPS,
    optimiser=replace(SMALL.optimiser, lr=30.0),
    keeping=replace(SMALL.keeping, checkpoint_every=2, evaluate_clips=0),
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
optimiser = {{ ema = 0.9, lr = 30.0 }}
parallel = {{ precision = "fp32", checkpointing = "none", compile = false }}
keeping = {{ checkpoint_every = 2, evaluate_clips = 0 }}
"""


def steps(folder: Path) -> dict[int, float]:
    lines = [line for line in entries(folder) if line["event"] == "step"]
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    return {line["step"]: line["loss"] for line in lines}


def workers(command: Command) -> list[psutil.Process]:
    """The processes that train, by the name that Ray gives them."""
    found = []
    for process in psutil.Process(command.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "RayTrainWorker" in "".join(process.cmdline()):
                found.append(process)
    return found


@contextmanager
def another_ray(here: Place) -> Iterator[None]:
    """What Ray takes for one when it looks for clusters on its machine."""
    raylet = here.root / "raylet"
    raylet.symlink_to("/bin/sh")
    with here.start(str(raylet), "-c", "sleep 3600; exit", "--gcs-address=127.0.0.1:1"):
        yield


def test_a_worker_that_is_killed_is_replaced_and_nothing_of_what_is_learnt_changes(here: Place, tmp_path: Path) -> None:
    data, originals = make_data(tmp_path / "data"), make_originals(tmp_path / "originals")
    undisturbed = make_job(data, originals, tmp_path / "undisturbed", RECIPE)
    run(on_rank, 2, undisturbed)

    (tmp_path / "recipe.toml").write_text(toml(RECIPE))
    out = tmp_path / "out"
    flags = [
        "--stage", "connector", "--recipe", str(tmp_path / "recipe.toml"), "--data", str(data), "--out", str(out),
        "--qwen", str(originals.qwen), "--ltx", str(originals.ltx), "--launcher", "ray", "--workers", "2",
    ]  # fmt: skip
    with another_ray(here), here.start(sys.executable, "pipelines/train.py", *flags) as command:
        command.until(lambda: len(workers(command)) == 2)
        victim = workers(command)[1]
        command.until(lambda: len(steps(out / "connector")) >= 3)
        victim.kill()
        ended = command.wait()
        assert command.left_behind() == []
    assert ended.code == 0, ended.stderr
    assert f"connector, {STEPS} steps" in ended.stdout
    assert "beginning with" in ended.stderr and "step-2" in ended.stderr
    assert "PlacementGroupCleaner" not in ended.stderr
    ours = [line for line in ended.stderr.splitlines() if not line.startswith("\x1b")]  # Ray's tell of the death
    assert not any("Traceback" in line for line in ours), ended.stderr
    assert steps(out / "connector") == pytest.approx(steps(undisturbed.folder), abs=1e-5)
    summary = Summary.read(out / "connector")
    assert summary is not None and summary.finished
