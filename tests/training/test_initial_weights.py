"""A stage that begins with an export: from the loss that the export ended with, with all that was trained up to it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from nextscene.common.errors import UsageError
from nextscene.training.checkpoint_info import CheckpointInfo, latest, read_beginning
from nextscene.training.initial_weights import load_initial_weights
from nextscene.training.model.pretrained import PretrainedModels
from tests.training.stages import SMALL, Stage, by_ranks, on_rank

pytestmark = pytest.mark.slow

FIRST = replace(
    SMALL,
    steps=2,
    trainable=("bridge.*", "transformer.transformer_blocks.1.*"),
    data=replace(SMALL.data, global_batch=2),
    optimizer=replace(SMALL.optimizer, kind="adamw", lr=0.05, ema=0.5),
    logging=replace(SMALL.logging, sample_clips=0, evaluate_every=0),
)
"""It goes so far that originals, last weights and averaged weights have each another loss."""

NEXT = replace(
    FIRST, name="next", steps=1, trainable=("bridge.*",), logging=replace(FIRST.logging, export_precision="bf16")
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    made = Stage.made(tmp_path_factory.mktemp("stage"), FIRST)
    made.data.parent.joinpath("originals", "ltx", "LICENSE.txt").write_text("Terms.")
    summary, _ = by_ranks(1, on_rank, made.job("first"))
    assert summary.heldout_after < summary.heldout_before - 0.01
    return made


@pytest.fixture(scope="module")
def exported(stage: Stage) -> Path:
    return stage.folder / "first" / "export"


@pytest.fixture(scope="module")
def again(stage: Stage, exported: Path) -> float:
    """The held-out loss that the next stage began with, in the run "again"."""
    return begun(stage, "again", exported)


def heldout_loss(exported: Path) -> float:
    return float(json.loads((exported / "nextscene.json").read_text())["summary"]["heldout_after"])


def begun(stage: Stage, name: str, init: Path) -> float:
    """The held-out loss before the first step of a run."""
    summary, observer = by_ranks(1, on_rank, stage.job(name, NEXT, init=init))
    assert f"beginning with {init}" in observer.notes
    return float(summary.heldout_before)


def test_the_stage_begins_with_the_held_out_loss_of_the_export(exported: Path, again: float) -> None:
    assert again == heldout_loss(exported)


@pytest.mark.usefixtures("again")
def test_what_only_the_export_trained_is_in_the_checkpoints_that_follow(stage: Stage, exported: Path) -> None:
    """As after a checkpoint: the next stage does not train the transformer, and passes it on all the same."""
    newest = latest(stage.folder / "first" / "generator" / "checkpoints")
    assert newest
    assert begun(stage, "of checkpoint", newest) == heldout_loss(exported)
    found = [
        CheckpointInfo.read(stage.folder / name / "next" / "checkpoints" / "step-1").parameters
        for name in ("again", "of checkpoint")
    ]
    assert found[0] == found[1] == read_beginning(exported).parameters
    assert any(name.startswith("transformer.") for name in found[0])


def test_an_export_is_the_originals_too_where_it_is_begun_with(stage: Stage, exported: Path) -> None:
    """Nobody needs the originals any more. The export of the next stage names their licenses."""
    own = replace(stage, pretrained=PretrainedModels(exported / "language_model", exported))
    assert begun(own, "alone", exported) == heldout_loss(exported)
    assert (stage.folder / "alone" / "export" / "licenses" / "ltx" / "LICENSE.txt").read_text() == "Terms."
    with pytest.raises(UsageError, match=rf"{exported} is an export .* give `init` {exported}, and with it `qwen`"):
        by_ranks(1, on_rank, own.job("without", NEXT))


@pytest.mark.usefixtures("again")
def test_an_export_in_bfloat16_is_begun_with_to_its_precision(stage: Stage) -> None:
    half = stage.folder / "again" / "export"
    weights = load_file(half / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    loss = begun(stage, "of half", half)
    assert loss != heldout_loss(half)
    assert loss == pytest.approx(heldout_loss(half), abs=2e-3)


def test_each_rank_takes_its_own_part_of_a_weight(tmp_path: Path) -> None:
    """The second of two ranks: of five rows the last two."""
    (tmp_path / "nextscene.json").write_text(json.dumps({"recipe": "sft", "step": 1, "determining": {}}))
    weights = {"a": torch.arange(15.0).view(5, 3), "b": torch.tensor([7.0])}
    (tmp_path / "bridge").mkdir()
    save_file(weights, tmp_path / "bridge" / "diffusion_pytorch_model.safetensors")
    info = CheckpointInfo("sft", "sft", 1, 1, 2, "", {}, ["bridge.a", "bridge.b"], [], {}, {})
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (2,))
        mine = {
            "bridge.a": DTensor.from_local(
                torch.zeros(2, 3), mesh, [Shard(0)], shape=torch.Size([5, 3]), stride=(3, 1)
            ),
            "bridge.b": torch.zeros(1),
        }
        load_initial_weights(tmp_path, info, mine)
        assert mine["bridge.a"].to_local().tolist() == [[9, 10, 11], [12, 13, 14]]
        assert mine["bridge.b"].tolist() == [7]
    finally:
        dist.destroy_process_group()


def test_an_export_with_a_damaged_file_is_refused(stage: Stage, exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "export"))
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UsageError, match=f"{weights} cannot be loaded: .*copy the export again"):
        begun(stage, "damaged", copy)
    weights.unlink()
    with pytest.raises(UsageError, match=r"lacks \d+ trained weights, transformer\.transformer_blocks\.1\."):
        begun(stage, "lacking", copy)


def test_settings_recorded_by_an_earlier_export_get_their_present_names(exported: Path, tmp_path: Path) -> None:
    record = json.loads((exported / "nextscene.json").read_text())
    record["determining"]["optimiser.clip"] = record["determining"].pop("optimizer.max_grad_norm", 1.0)
    (tmp_path / "nextscene.json").write_text(json.dumps(record))
    assert read_beginning(tmp_path).determining["optimizer.max_grad_norm"] == 1.0


def test_an_export_says_what_it_was_trained_on_without_naming_a_place(stage: Stage, exported: Path) -> None:
    text = (exported / "nextscene.json").read_text()
    assert str(stage.folder) not in text + (exported / "README.md").read_text()
    data = json.loads(text)["data"]["data"]
    assert (data["name"], data["samples"]) == ("data", {"train": 13, "test": 3})
