"""Checkpoints: whole or not there, only the newest kept, and refused in a line where they do not fit."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.shards.format.folder_mark import RUN, claim
from nextscene.training.checkpoint import Checkpoints, load
from nextscene.training.checkpoint_info import CheckpointInfo, latest
from nextscene.training.data.batches import TrainingBatch
from nextscene.training.distributed.process_group import process_group
from nextscene.training.errors import Diverged, TrainingStopped
from nextscene.training.job import TrainingJob
from nextscene.training.model.pretrained import PretrainedModels
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.objectives.flow_matching import sample_losses
from nextscene.training.optimizer.prodigy import Prodigy
from nextscene.training.recipe import without_free_settings
from nextscene.training.trainer import train
from tests.shards.clips import clip_dataset
from tests.training.ranks import RankFailed, run
from tests.training.stages import SMALL, Quiet, by_ranks, make_data, make_job, make_originals, on_rank, replace

pytestmark = pytest.mark.slow

ABOUT = CheckpointInfo("sft", "sft", 0, 0, 1, "model", {}, ["a"], [], {}, {})
RECIPE = replace(
    SMALL,
    steps=3,
    optimizer=replace(SMALL.optimizer, lr=30.0),
    logging=replace(SMALL.logging, checkpoint_every=1, evaluate_clips=0),
)

# ---- the folder of a run ----------------------------------------------------------------------------------------


def values(step: int) -> dict[str, torch.Tensor]:
    return {"a": torch.full((3, 2), float(step)), "b": torch.tensor(step)}


def saved(folder: Path, steps: list[int], keep_last: int = 2) -> None:
    with process_group() as world:
        checkpoints = Checkpoints(folder, world, keep_last)
        for step in steps:
            checkpoints.save(values(step), replace(ABOUT, step=step))
        checkpoints.wait()
        checkpoints.close()


def loaded(checkpoint: Path) -> dict[str, torch.Tensor]:
    tensors = values(-1)
    with process_group():
        load(checkpoint, tensors)
    return tensors


def test_only_the_newest_are_kept_by_number_not_by_name(tmp_path: Path) -> None:
    saved(tmp_path, [8, 9, 10, 100])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-100"]
    newest = latest(tmp_path)
    assert newest == tmp_path / "step-100"
    assert CheckpointInfo.read(newest) == replace(ABOUT, step=100)
    assert all(torch.equal(tensor, values(100)[name]) for name, tensor in loaded(newest).items())


def test_what_is_saved_is_what_stood_when_it_was_asked_for(tmp_path: Path) -> None:
    """It is written behind training's back, which continues changing the same memory."""
    tensors = values(1)
    with process_group() as world:
        checkpoints = Checkpoints(tmp_path, world, 1)
        checkpoints.save(tensors, replace(ABOUT, step=1))
        for tensor in tensors.values():
            tensor.fill_(7)
        checkpoints.wait()
        checkpoints.close()
    assert torch.equal(loaded(tmp_path / "step-1")["a"], values(1)["a"])


def test_what_a_killed_run_left_is_no_checkpoint_and_is_swept_away(tmp_path: Path) -> None:
    saved(tmp_path, [1])
    shutil.copytree(tmp_path / "step-1", tmp_path / "step-2.unfinished")
    theirs = ["step-0.best", "step-x.unfinished", "thesis.unfinished"]
    for name in theirs:
        (tmp_path / name).mkdir()
    assert latest(tmp_path) == tmp_path / "step-1"
    saved(tmp_path, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0.best", "step-1", *theirs[1:]]


def test_folders_that_hold_something_else_are_neither_pruned_nor_swept_away(tmp_path: Path) -> None:
    theirs = ["step-1/w.pt", "step-2/about.json/mine", "step-3.unfinished/notes.txt", "step-4.unfinished/.metadata/x"]
    for name in theirs:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "step-5.unfinished").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "step-6.unfinished").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "step-7").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "step-8.unfinished").mkdir()
    saved(tmp_path, [10, 11, 12], keep_last=2)
    assert all((tmp_path / name).read_text() == "mine" for name in theirs)
    numbers = [1, 11, 12, 2, 7]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["elsewhere", *(f"step-{n}" for n in numbers), *(f"step-{n}.unfinished" for n in (3, 4, 5, 6))]
    )


def test_a_run_is_known_by_its_checkpoint_though_it_has_no_mark(tmp_path: Path) -> None:
    saved(tmp_path / "sft" / "checkpoints", [1])
    claim(Storage.at(tmp_path), RUN)


def test_there_is_none_where_nothing_was_saved(tmp_path: Path) -> None:
    assert latest(tmp_path / "nowhere") is None


def test_a_checkpoint_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    with process_group() as world:
        checkpoints = Checkpoints(tmp_path, world, 1)
        with patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")):
            checkpoints.save(values(1), replace(ABOUT, step=1))
            with pytest.raises(TrainingStopped, match=r"could not be written in .*No space left"):
                checkpoints.wait()
        checkpoints.close()
    assert latest(tmp_path) is None


# ---- runs of the trainer ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModels:
    return make_originals(tmp_path_factory.mktemp("originals"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(
    data: Path, pretrained: PretrainedModels, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingJob, Quiet]:
    job = make_job(data, pretrained, tmp_path_factory.mktemp("undisturbed"), RECIPE)
    return job, by_ranks(1, on_rank, job)[1]


def _killed(rank: int, world: int, job: TrainingJob) -> None:
    """Dies when the files of step 2 are all written, and only their folder's name is not yet."""
    rename = Path.replace

    def die(draft: Path, final: Path) -> Path:
        if final.name == "step-2":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(draft, final)

    with patch.object(Path, "replace", die):
        on_rank(rank, world, job)


def test_a_run_killed_while_saving_resumes_from_the_checkpoint_before(
    undisturbed: tuple[TrainingJob, Quiet], tmp_path: Path
) -> None:
    job = replace(undisturbed[0], run=tmp_path)
    with pytest.raises(RankFailed, match="exit code -9"):
        run(_killed, 1, job)
    assert sorted(path.name for path in job.checkpoints.iterdir()) == ["step-1", "step-2.unfinished"]
    _, resumed = by_ranks(1, on_rank, replace(job, resume=True))
    assert resumed.losses == {step: undisturbed[1].losses[step] for step in (2, 3)}
    assert sorted(path.name for path in job.checkpoints.iterdir()) == ["step-1", "step-2", "step-3"]


def refused(job: TrainingJob) -> str:
    """The one line by which a run is refused."""
    with pytest.raises(UsageError) as mistake, process_group() as world:
        train(job, world, Quiet())
    assert "\n" not in str(mistake.value)
    return str(mistake.value)


@pytest.fixture
def again(undisturbed: tuple[TrainingJob, Quiet], tmp_path: Path) -> TrainingJob:
    """A copy of the undisturbed run, to continue with."""
    shutil.copytree(undisturbed[0].run, tmp_path / "run")
    return replace(undisturbed[0], run=tmp_path / "run", resume=True)


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
@pytest.mark.parametrize("content", [None, b"", b"damaged" * 99])
def test_a_damaged_checkpoint_is_named_and_is_to_be_deleted(
    again: TrainingJob, name: str, content: bytes | None
) -> None:
    file = again.checkpoints / "step-3" / name
    file.unlink() if content is None else file.write_bytes(content)
    message = refused(again)
    assert str(file.parent) in message and "delete it to continue from the one before it" in message


def test_a_tensor_that_lost_some_bits_is_not_taken_for_whole(again: TrainingJob) -> None:
    file = again.checkpoints / "step-3" / "__0_0.distcp"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2048] = bytes(2048)
    file.write_bytes(content)
    assert str(file.parent) in refused(again)


@pytest.mark.parametrize("value", [1e30, math.nan])
@pytest.mark.parametrize("step", [2, 3])
def test_weights_that_diverged_do_not_become_a_checkpoint(
    data: Path, pretrained: PretrainedModels, tmp_path: Path, step: int, value: float
) -> None:
    job = make_job(data, pretrained, tmp_path / "run", RECIPE)
    with patch.object(Prodigy, "step", poisoning(step, value)), pytest.raises(Diverged, match=r"continue from step-\d"):
        by_ranks(1, on_rank, job)
    assert latest(job.checkpoints) == job.checkpoints / f"step-{step - 1}"
    assert not list(job.checkpoints.glob("*.unfinished"))


def poisoning(step: int, value: float) -> Callable[..., None]:
    """Return a method of Prodigy that makes the weights useless in this step."""
    whole, taken = Prodigy.step, []

    def poison(self: Prodigy, *arguments: Any) -> None:
        whole(self, *arguments)
        taken.append(self)
        if len(taken) == step:
            with torch.no_grad():
                for parameter in self.param_groups[0]["params"]:
                    parameter.fill_(value)

    return poison


def test_clips_with_a_non_finite_loss_are_named_and_earlier_weights_kept(
    data: Path, pretrained: PretrainedModels, tmp_path: Path
) -> None:
    job = make_job(data, pretrained, tmp_path / "run", RECIPE)
    asked: list[str] = []

    def losses(model: UnifiedModel, batch: TrainingBatch) -> Tensor:
        asked.extend(batch.keys)
        found = sample_losses(model, batch)
        return found * math.nan if len(asked) == 2 * RECIPE.data.global_batch + 1 else found

    module = "nextscene.training.objectives.flow_matching.sample_losses"
    with patch(module, losses), pytest.raises(TrainingStopped, match="other clips have a finite loss") as stop:
        by_ranks(1, on_rank, job)
    assert not isinstance(stop.value, Diverged) and asked[2 * RECIPE.data.global_batch] in str(stop.value)
    assert latest(job.checkpoints) == job.checkpoints / "step-2"


def test_a_run_that_stands_is_not_written_over(again: TrainingJob) -> None:
    assert "holds a run at step-3; continue with `resume`" in refused(replace(again, resume=False))


def test_a_run_does_not_go_on_with_other_models(again: TrainingJob, tmp_path: Path) -> None:
    shutil.copytree(again.pretrained.qwen, tmp_path / "qwen")
    config = json.loads((tmp_path / "qwen" / "config.json").read_text())
    (tmp_path / "qwen" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    message = refused(replace(again, pretrained=replace(again.pretrained, qwen=tmp_path / "qwen")))
    assert "other models than `qwen` and `ltx` name" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 5}, "seed is 5, was 0"),
        ({"trainable": ("bridge.*",)}, "trainable is ['bridge.*'], was ['bridge.*', 'transformer.*']"),
        ({"optimizer": replace(RECIPE.optimizer, kind="adamw")}, "optimizer.kind is 'adamw', was 'prodigy'"),
        ({"data": replace(RECIPE.data, global_batch=2)}, "data.global_batch is 2, was 4"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(again: TrainingJob, changes: dict[str, Any], words: str) -> None:
    assert words in refused(replace(again, recipe=replace(again.recipe, **changes)))


OLD_NAMES = {
    "optimizer.kind": "optimiser.kind",
    "optimizer.beta1": "optimiser.beta1",
    "optimizer.beta2": "optimiser.beta2",
    "optimizer.weight_decay": "optimiser.weight_decay",
    "optimizer.ema": "optimiser.ema",
    "policy.group_size": "policy.candidates",
    "policy.clip_range": "policy.clip",
    "policy.kl_coef": "policy.kl",
    "policy.normalize": "policy.normalise",
}
"""Today's name of each identity setting that was renamed → its name in the runs of the version before."""


def record_with_old_names(checkpoint: Path) -> set[str]:
    """Rewrite the description of a checkpoint as the version before wrote it. Return the old names in it."""
    info = json.loads((checkpoint / "about.json").read_text())
    info["determining"] = {OLD_NAMES.get(name, name): value for name, value in info["determining"].items()}
    info["determining"]["data.micro_batch"] = 8  # which could not change
    (checkpoint / "about.json").write_text(json.dumps(info))
    return info["determining"].keys() & set(OLD_NAMES.values())


def test_a_run_of_the_version_before_is_resumed(again: TrainingJob) -> None:
    shutil.rmtree(again.checkpoints / "step-3")
    assert len(record_with_old_names(again.checkpoints / "step-2")) == 5
    watcher = Quiet()
    with process_group() as world:
        assert train(again, world, watcher).finished
    assert list(watcher.losses) == [3]


def test_the_average_of_a_run_of_the_version_before_goes_on_without_a_warm_up(again: TrainingJob) -> None:
    shutil.rmtree(again.checkpoints / "step-3")
    file = again.checkpoints / "step-2" / "about.json"
    about = json.loads(file.read_text())
    assert (about.pop("average_updates"), about.pop("settings")["optimizer.ema"]) == (2, 0.9)
    file.write_text(json.dumps(about))
    by_ranks(1, on_rank, again)
    assert CheckpointInfo.read(again.checkpoints / "step-3").average_updates is None
    before, after = (whole_tensors(again.checkpoints / f"step-{step}") for step in (2, 3))
    averaged = {name.removeprefix("average."): value for name, value in before.items() if name.startswith("average.")}
    assert averaged
    for name, average in averaged.items():
        torch.testing.assert_close(after[f"average.{name}"], 0.9 * average + 0.1 * after[f"model.{name}"])


def whole_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """All that a checkpoint holds, by torch's own converter."""
    file = checkpoint.with_suffix(".pt")
    dcp_to_torch_save(checkpoint, file)
    found: dict[str, Tensor] = torch.load(file)
    return found


def test_policy_settings_of_the_version_before_are_read_by_their_names_of_today(tmp_path: Path) -> None:
    recipe = replace(RECIPE, stage="rl", data=replace(RECIPE.data, micro_batch=1))
    info = replace(ABOUT, determining=recipe.identity_settings())
    (tmp_path / "about.json").write_text(json.dumps(asdict(info)))
    assert len(record_with_old_names(tmp_path)) == 9
    recorded = CheckpointInfo.read(tmp_path).determining
    assert without_free_settings(recorded) == recipe.identity_settings()


def test_a_run_does_not_go_on_with_other_data(again: TrainingJob, tmp_path: Path) -> None:
    clip_dataset(tmp_path / "other", [9] * 5)
    message = refused(replace(again, data={"data": str(tmp_path / "other")}))
    assert "step-3 does not fit this `data`" in message and "another dataset" in message


def test_a_run_may_go_on_for_longer_and_with_a_lower_rate(again: TrainingJob) -> None:
    recipe = replace(
        again.recipe, steps=4, optimizer=replace(again.recipe.optimizer, lr=1.0, max_grad_norm=0.5, warmup=9)
    )
    observer = Quiet()
    with process_group() as world:
        assert train(replace(again, recipe=recipe), world, observer).finished
    assert list(observer.losses) == [4]


def test_a_stage_does_not_begin_with_a_later_one(undisturbed: tuple[TrainingJob, Quiet], tmp_path: Path) -> None:
    job = undisturbed[0]
    recipe = replace(RECIPE, name="connector", stage="connector", trainable=("bridge.*",))
    message = refused(replace(job, recipe=recipe, run=tmp_path, init=job.checkpoints / "step-3"))
    assert "of the stage generator, which comes after connector" in message


def test_a_stage_does_not_begin_with_another_bridge(undisturbed: tuple[TrainingJob, Quiet], tmp_path: Path) -> None:
    job = undisturbed[0]
    recipe = replace(RECIPE, model=replace(RECIPE.model, queries=5))
    message = refused(replace(job, recipe=recipe, run=tmp_path, init=job.checkpoints / "step-3"))
    assert "'num_queries': 4" in message and "'num_queries': 5" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not a complete checkpoint"),
        ("{", "is not a complete checkpoint"),
        ("{}", "is not a complete checkpoint"),
        (json.dumps(asdict(ABOUT) | {"version": 99}), "is of version 99, not 1"),
    ],
)
def test_what_is_no_checkpoint_is_not_begun_with(
    undisturbed: tuple[TrainingJob, Quiet], tmp_path: Path, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "about.json").write_text(content)
    message = refused(replace(undisturbed[0], run=tmp_path / "run", init=tmp_path))
    assert words in message and str(tmp_path) in message
    assert not (tmp_path / "run").exists()
