"""The trainer: it learns what one plain process would, by any number of ranks, interrupted or not, however laid out."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest
import torch
from prodigyopt import Prodigy
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.tensor import DTensor

from nextscene.common.fence import LOCK
from nextscene.common.storage import Storage
from nextscene.shards.loading.loader import Loader
from nextscene.training.build_stage import build_stage
from nextscene.training.checkpoint_info import CheckpointInfo
from nextscene.training.data.batches import BatchEncoder, BatchPreparer
from nextscene.training.data.datasets import MixDatasets
from nextscene.training.distributed.process_group import current_world
from nextscene.training.errors import TrainingStopped
from nextscene.training.flow.objective import loss_per_sample, noised
from nextscene.training.job import TrainingJob
from nextscene.training.metrics.log_file import read_metrics
from nextscene.training.model.grid import Ratios
from nextscene.training.model.pretrained import new_bridge
from nextscene.training.model.prompter import Prompter
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.trainer import train
from tests.training.stages import SMALL, Quiet, Stage, by_ranks, on_rank, replace

pytestmark = pytest.mark.slow

# So large a rate that a step can be seen in the loss of the next, and a bound that all gradients are above.
RECIPE = replace(
    SMALL,
    optimizer=replace(SMALL.optimizer, lr=30.0, warmup=2, max_grad_norm=0.2),
    logging=replace(SMALL.logging, evaluate_clips=0, checkpoint_every=0),
)
ADAMW = replace(RECIPE, optimizer=replace(RECIPE.optimizer, kind="adamw", lr=0.01), steps=2)
CONNECTOR = replace(RECIPE, name="connector", stage="connector", trainable=("bridge.*",), steps=2)
ATTENTION = replace(RECIPE, trainable=("bridge.connector.*", "transformer.transformer_blocks.*.attn2.*"), steps=2)


@dataclass(frozen=True)
class Ran:
    job: TrainingJob
    summary: Any
    observer: Quiet

    @property
    def losses(self) -> dict[int, float]:
        return self.observer.losses

    @property
    def norms(self) -> list[float]:
        return [line["gradient_norm"] for line in read_metrics(self.job.folder) if line["event"] == "step"]


def ran(job: TrainingJob, world: int = 1) -> Ran:
    return Ran(job, *by_ranks(world, on_rank, job))


def stopped(job: TrainingJob, step: int) -> TrainingJob:
    """After a step that is not its last."""
    summary, _ = by_ranks(1, on_rank, job, step)
    assert (summary.step, summary.finished) == (step, False)
    return replace(job, resume=True)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.made(tmp_path_factory.mktemp("stage"), RECIPE)


@pytest.fixture(scope="module")
def whole(stage: Stage) -> Ran:
    """Four steps by one rank, undisturbed, evaluated, and each kept."""
    keeping = replace(SMALL.logging, checkpoint_every=1, keep_last=4)
    return ran(stage.job("whole", replace(RECIPE, logging=keeping)))


@pytest.fixture(scope="module")
def shared(stage: Stage) -> Ran:
    """The same by two ranks."""
    return ran(stage.job("shared", replace(RECIPE, logging=SMALL.logging)), 2)


@dataclass(frozen=True)
class Left:
    """A run, and all parameters of the model as it left them in memory."""

    job: TrainingJob
    weights: dict[str, Tensor]


def left(job: TrainingJob, world: int) -> Left:
    return Left(job, by_ranks(world, _weights, job))


def _weights(rank: int, world: int, job: TrainingJob) -> dict[str, Tensor]:
    settings = []
    with patch(
        "nextscene.training.trainer.build_stage", lambda *given: settings.append(build_stage(*given)) or settings[0]
    ):
        train(job, current_world(), Quiet())
    named = {name: value.detach() for name, value in settings[0].model.named_parameters()}
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in named.items()}


@pytest.fixture(scope="module")
def connector(stage: Stage) -> Left:
    return left(stage.job("stages", CONNECTOR), 2)


def tensors(job: TrainingJob, step: int) -> dict[str, Tensor]:
    """All that a checkpoint holds, by torch's own converter."""
    file = job.folder / "whole.pt"
    dcp_to_torch_save(job.checkpoints / f"step-{step}", file)
    found: dict[str, Tensor] = torch.load(file)
    return found


def assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


# ---- what is learned ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    """What a loop without any of the trainer comes to. `frames` are those of the latents, by step."""

    losses: list[float]
    norms: list[float]
    frames: list[set[int]]
    weights: dict[str, Tensor]


def plainly(job: TrainingJob, batch: int) -> Plain:
    """One process, one model, one gradient of the mean over the samples, and Prodigy's authors' own optimizer."""
    recipe, pretrained = job.recipe, job.pretrained
    vae, scheduler = pretrained.vae(torch.float32), pretrained.scheduler()
    language, transformer = pretrained.language(torch.float32), pretrained.transformer(torch.float32)
    bridge = new_bridge(language, transformer, recipe.model.queries, 0, recipe.seed)
    model = UnifiedModel(language, bridge, transformer, Ratios.of(vae))
    named = {name: value for name, value in model.named_parameters() if not name.startswith("language.")}
    matrices = [value for name, value in named.items() if name.endswith(".weight") and value.ndim == 2]
    vectors = [value for value in named.values() if all(value is not matrix for matrix in matrices)]
    optimizer = Prodigy(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.99),
        use_bias_correction=True,
        safeguard_warmup=True,
    )
    loader = Loader(
        MixDatasets(recipe, job.data, pretrained, print).training(Ratios.of(vae)), micro_batch=1, seed=recipe.seed
    )
    encoder = BatchEncoder(vae, Prompter(pretrained.tokenizer(), 252), recipe.mix, torch.device("cpu"))
    batches = iter(BatchPreparer(loader, encoder, recipe.objective, scheduler, recipe.seed))

    plain = Plain([], [], [], {})
    for step in range(recipe.steps):
        samples = [next(batches) for _ in range(batch)]
        loss = torch.stack(
            [
                loss_per_sample(
                    model(one.text_tokens, noised(one.clean, one.noise, one.sigma), one.sigma, one.coords),
                    one.clean,
                    one.noise,
                ).mean()
                for one in samples
            ]
        ).mean()
        gradients = torch.autograd.grad(loss, list(named.values()))
        norm = math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients))
        for value, gradient in zip(named.values(), gradients, strict=True):
            value.grad = gradient * min(1.0, recipe.optimizer.max_grad_norm / norm)
        for group in optimizer.param_groups:
            group["lr"] = recipe.optimizer.lr * (0.5 if step == 0 else 1.0)
        optimizer.step()
        plain.losses.append(loss.item())
        plain.norms.append(norm)
        plain.frames.append({one.grid.frames for one in samples})
    plain.weights.update({name: value.detach() for name, value in named.items()})
    return plain


def test_ranks_learn_what_one_plain_process_does_from_images_and_videos_mixed(whole: Ran, shared: Ran) -> None:
    plain = plainly(whole.job, batch=4)
    assert {1, 3} in plain.frames  # or the mean over tokens would be that over samples
    assert min(plain.norms) > RECIPE.optimizer.max_grad_norm
    begun = whole.job.pretrained.transformer(torch.float32).state_dict()
    assert max((plain.weights[f"transformer.{name}"] - value).abs().max() for name, value in begun.items()) > 5e-3
    for got in (whole, shared):
        assert list(got.losses) == [1, 2, 3, 4]
        assert list(got.losses.values()) == pytest.approx(plain.losses, abs=1e-5)
        assert got.norms == pytest.approx(plain.norms, abs=1e-5)
        saved = tensors(got.job, 4)
        for name, value in plain.weights.items():
            torch.testing.assert_close(saved[f"model.{name}"], value, atol=1e-4, rtol=0)


def test_two_ranks_measure_held_out_clips_as_one_does(whole: Ran, shared: Ran) -> None:
    one, two = whole.summary, shared.summary
    for name in ("heldout_before", "heldout_after", "zero"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), abs=1e-5)
    assert one.heldout_before != one.heldout_after
    assert (one.heldout.clips, one.seen.clips) == (two.heldout.clips, two.seen.clips) == (3, 3)
    assert one.heldout.gain == pytest.approx(two.heldout.gain, abs=1e-5)


def test_the_average_follows_the_weights_of_every_step_and_is_what_is_exported(whole: Ran) -> None:
    steps = [tensors(whole.job, step) for step in (1, 2, 3, 4)]
    exported = load_file(whole.job.run / "export" / "transformer" / "diffusion_pytorch_model.safetensors")
    for name, average in whole.job.pretrained.transformer(torch.float32).state_dict().items():
        for number, step in enumerate(steps):
            decay = (1 + number) / (10 + number)  # it warms up to 0.9, and is 0.31 after four steps
            average = decay * average + (1 - decay) * step[f"model.transformer.{name}"]
        assert not torch.equal(average, steps[-1][f"model.transformer.{name}"])
        torch.testing.assert_close(steps[-1][f"average.transformer.{name}"], average)
        assert torch.equal(steps[-1][f"average.transformer.{name}"], exported[name])


def test_texts_that_are_cut_are_counted_in_each_step_and_in_a_note_at_the_end(stage: Stage, whole: Ran) -> None:
    """The prompt of the next scene alone has 120 tokens."""
    model, objective = replace(RECIPE.model, max_tokens=124), replace(RECIPE.objective, dropout=0.0)
    mix = (replace(RECIPE.mix[0], prompt="nsp"),)
    recipe = replace(ADAMW, model=model, objective=objective, mix=mix)
    cut = ran(stage.job("cut", recipe))
    assert [line["texts_cut"] for line in read_metrics(cut.job.folder)] == [4, 4]
    assert cut.observer.notes[-1] == "8 texts did not fit, and lost their ends; raise `model.max_tokens`"
    assert not any("did not fit" in note for note in whole.observer.notes)


# ---- interrupted and gone on with -------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (1, 3), (2, 1)])
def test_a_run_goes_on_by_any_number_of_ranks_as_if_nothing_had_been(
    whole: Ran, shared: Ran, stage: Stage, before: int, after: int
) -> None:
    """From what it had at its second step, and lines of later ones, which had been written when it was killed.

    Three ranks share four samples in two turns, with two fillers.
    """
    undisturbed = {1: whole, 2: shared, 3: shared}[after]
    job = stage.job(f"resumed-{before}-{after}", resume=True)
    later = shutil.ignore_patterns("step-3", "step-4", "summary.json")
    shutil.copytree({1: whole, 2: shared}[before].job.run, job.run, ignore=later)
    resumed = ran(job, after)
    assert resumed.summary.finished
    assert list(resumed.losses) == [3, 4]
    assert resumed.losses == pytest.approx({step: undisturbed.losses[step] for step in (3, 4)}, abs=1e-5)
    assert resumed.norms == pytest.approx(undisturbed.norms, abs=1e-5)
    if before == after:
        assert resumed.losses == {step: undisturbed.losses[step] for step in (3, 4)}
        assert_equal(tensors(job, 4), tensors(undisturbed.job, 4))


def test_a_run_resumed_with_other_micro_batches_has_the_same_samples(whole: Ran, stage: Stage) -> None:
    """From its second step, in micro-batches of 2, which would come in another order in a new run."""
    recipe = replace(RECIPE, data=replace(RECIPE.data, micro_batch=2))
    job = stage.job("regrouped", recipe, resume=True)
    shutil.copytree(whole.job.run, job.run, ignore=shutil.ignore_patterns("step-3", "step-4", "summary.json"))
    regrouped = ran(job)
    assert regrouped.losses == pytest.approx({step: whole.losses[step] for step in (3, 4)}, abs=1e-5)
    assert regrouped.norms == pytest.approx(whole.norms, abs=1e-5)
    afresh = ran(stage.job("afresh", replace(recipe, steps=2)))
    assert afresh.losses[2] != pytest.approx(whole.losses[2], abs=1e-4)
    states = [CheckpointInfo.read(one.checkpoints / "step-4").loader for one in (job, whole.job)]
    assert states[0] == states[1]


def test_adamw_that_was_stopped_goes_on_to_the_bit(stage: Stage) -> None:
    undisturbed = ran(stage.job("adamw", ADAMW))
    resumed = ran(stopped(stage.job("adamw-stopped", ADAMW), 1))
    assert resumed.losses == {2: undisturbed.losses[2]}
    assert_equal(tensors(resumed.job, 2), tensors(undisturbed.job, 2))


def test_a_finished_run_that_goes_on_does_nothing_and_tells_the_same(whole: Ran) -> None:
    again = ran(replace(whole.job, resume=True))
    assert again.losses == {}
    assert again.summary == whole.summary


def test_a_training_whose_lock_was_taken_writes_nothing(stage: Stage) -> None:
    """As its process was stopped for long."""
    job = stage.job("overtaken", ADAMW, owner="mine")
    lock = Storage.at(job.run)
    lock.write(LOCK, b'{"run_id": "mine"}')
    job.check_owner()
    lock.write(LOCK, b'{"run_id": "theirs"}')
    with pytest.raises(TrainingStopped, match=r"run\.lock was taken by another run"):
        ran(job)
    assert read_metrics(job.folder) == []
    assert not list(job.checkpoints.glob("step-*")) and not (job.run / "export").exists()


# ---- how the model lies on the devices --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"replicas": 2, "checkpointing": "full"}, {"gather_language": False, "checkpointing": "selective"}],
    ids=str,
)
def test_what_is_learned_does_not_depend_on_the_layout(whole: Ran, stage: Stage, changes: dict[str, Any]) -> None:
    recipe = replace(RECIPE, steps=2, parallel=replace(RECIPE.parallel, **changes))
    laid_out = ran(stage.job(str(changes["checkpointing"]), recipe), 2)
    assert laid_out.losses == pytest.approx({step: whole.losses[step] for step in (1, 2)}, abs=1e-5)
    assert laid_out.norms == pytest.approx(whole.norms[:2], abs=1e-5)


# ---- what is trained and what is not ----------------------------------------------------------------------------


def test_all_but_what_is_listed_as_trained_stays_as_it_was_to_the_bit(connector: Left, stage: Stage) -> None:
    language, transformer = stage.pretrained.language(torch.float32), stage.pretrained.transformer(torch.float32)
    model = UnifiedModel(language, new_bridge(language, transformer, 4, 0, 0), transformer, Ratios(4, 4))
    before = dict(model.named_parameters())
    for run, count in ((connector, 7), (left(stage.job("attention", ATTENTION), 1), 26)):
        assert before.keys() == run.weights.keys()
        moved = {name for name, value in before.items() if not torch.equal(value, run.weights[name])}
        listed = (run.job.folder / "trained_parameters.txt").read_text().splitlines()
        assert {line.split()[0] for line in listed} == moved
        assert len(listed) == count


def test_a_connector_is_exported_beside_the_transformer_it_was_given(connector: Left) -> None:
    exported = connector.job.run / "export"
    original = load_file(connector.job.pretrained.ltx / "transformer" / "diffusion_pytorch_model.safetensors")
    assert_equal(load_file(exported / "transformer" / "diffusion_pytorch_model.safetensors"), original)
    saved = tensors(connector.job, 2)
    bridge = load_file(exported / "bridge" / "diffusion_pytorch_model.safetensors")
    assert_equal(
        {f"average.bridge.{name}": value for name, value in bridge.items()},
        {name: value for name, value in saved.items() if name.startswith("average.")},
    )


# ---- from stage to stage ----------------------------------------------------------------------------------------


def test_a_stage_begins_with_the_averaged_weights_of_the_one_before(connector: Left, stage: Stage) -> None:
    """Prodigy keeps the weights that it began with."""
    handed = tensors(connector.job, 2)
    recipe = replace(RECIPE, steps=1)
    begun = tensors(ran(stage.job("stages", recipe, init=connector.job.checkpoints / "step-2")).job, 1)
    for name in (name.removeprefix("average.") for name in handed if name.startswith("average.")):
        assert torch.equal(begun[f"optimiser.{name}.p0"], handed[f"average.{name}"])
        assert not torch.equal(handed[f"average.{name}"], handed[f"model.{name}"])


def test_parameters_of_an_earlier_stage_are_kept_by_one_that_freezes_them(whole: Ran, stage: Stage) -> None:
    recipe = replace(CONNECTOR, name="sft", stage="sft")
    job = stage.job("carried", recipe, init=whole.job.checkpoints / "step-4")
    assert ran(stopped(job, 1)).summary.finished
    taken = load_file(whole.job.run / "export" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert_equal(load_file(job.run / "export" / "transformer" / "diffusion_pytorch_model.safetensors"), taken)
