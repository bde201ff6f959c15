"""What dealt ranks learn from an epoch is what one learns from the order: the same samples, means and gradients."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nextscene.shards.loading.deal import Dealing
from nextscene.shards.loading.loader import Loader
from nextscene.shards.loading.mixture import Mixture
from nextscene.shards.loading.shuffle import SampleRef
from nextscene.training.data.batches import BatchEncoder, BatchPreparer, TrainingBatch
from nextscene.training.data.datasets import MixDatasets
from nextscene.training.distributed.process_group import World
from nextscene.training.flow.objective import loss_per_sample, noised
from nextscene.training.metrics.costs import sample_costs
from nextscene.training.metrics.flops import StepFlops
from nextscene.training.metrics.throughput import Throughput
from nextscene.training.model.grid import Ratios
from nextscene.training.model.model_folders import architecture_config
from nextscene.training.model.pretrained import new_bridge
from nextscene.training.model.prompter import Prompter
from nextscene.training.model.trainable import set_trainable, trained_parameters
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.objectives.flow_matching import FlowMatching
from nextscene.training.validation import Validator
from tests.training.stages import SMALL, Stage, replace

CPU = torch.device("cpu")
RECIPE = replace(SMALL, data=replace(SMALL.data, micro_batch=2, global_batch=4))
STEPS = 4
"""Thirteen samples and three of the next epoch."""


@dataclass(frozen=True, kw_only=True)
class Rank(World):
    """A rank that computes alone: what all ranks would sum up is noted, and added up by the test."""

    sums: list[Tensor]

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        self.sums.append(values.double())
        return torch.ones_like(values, dtype=torch.float64)


@dataclass(frozen=True)
class Step:
    """The samples of a step in a fixed order, its mean loss, and the gradient of that."""

    refs: list[SampleRef]
    loss: float
    gradient: dict[str, Tensor]


class Parts:
    """The model and the data of a stage, whole on one process."""

    def __init__(self, stage: Stage) -> None:
        pretrained = stage.pretrained
        vae, transformer = pretrained.vae(torch.float32), pretrained.transformer(torch.float32)
        language = pretrained.language(torch.float32)
        self.model = UnifiedModel(language, new_bridge(language, transformer, 4, 0, 0), transformer, Ratios.of(vae))
        set_trainable(self.model, RECIPE.trainable)
        self._sets = MixDatasets(RECIPE, {"data": str(stage.data)}, pretrained, print)
        self.clips: Mixture = self._sets.training(Ratios.of(vae))
        self.costs = sample_costs(self.model, architecture_config(vae.config), RECIPE, self.clips.shapes, encoded=False)
        self._encoder = BatchEncoder(vae, Prompter(pretrained.tokenizer(), 252), RECIPE.mix, CPU)
        self._scheduler = pretrained.scheduler()

    def batches(self, rank: int = 0, world: int = 1, micro_batch: int = 2, dealing: Dealing | None = None) -> Any:
        loader = Loader(self.clips, micro_batch=micro_batch, rank=rank, world=world, dealing=dealing)
        return iter(BatchPreparer(loader, self._encoder, RECIPE.objective, self._scheduler, RECIPE.seed))

    def gradient(self) -> dict[str, Tensor]:
        """What was accumulated since the last call."""
        found = {
            name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
            for name, value in trained_parameters(self.model).items()
        }
        self.model.zero_grad(set_to_none=True)
        return found

    def undealt(self) -> list[Step]:
        """Each sample of the order alone, by a plain loop."""
        batches, steps = self.batches(), []
        for _ in range(STEPS):
            losses, refs = [], []
            for batch in (next(batches), next(batches)):
                predicted = self.model(
                    batch.text_tokens, noised(batch.clean, batch.noise, batch.sigma), batch.sigma, batch.coords
                )
                losses.append(loss_per_sample(predicted, batch.clean, batch.noise))
                refs += batch.refs
            mean = torch.cat(losses).mean()
            mean.backward()
            steps.append(Step(sorted(refs), mean.item(), self.gradient()))
        return steps

    def dealt(self, world: int) -> list[Step]:
        """The ranks one after another in each step; their gradients are averaged, as FSDP averages them."""
        own = [self.batches(rank, world, dealing=Dealing(4, self.costs)) for rank in range(world)]
        return [self._step(own) for _ in range(STEPS)]

    def _step(self, own: list[Any]) -> Step:
        sums: list[Tensor] = []
        gradients, turns, refs = [], [], []
        for rank, batches in enumerate(own):
            counted: list[TrainingBatch] = []
            state = SimpleNamespace(
                world=Rank(rank, len(own), CPU, sums=sums), model=self.model, job=SimpleNamespace(recipe=RECIPE)
            )
            objective = FlowMatching(cast(Any, state), cast(Any, SimpleNamespace(count_micro_batch=counted.append)))
            objective.compute_gradient(batches, 0)
            gradients.append(self.gradient())
            turns.append(len(counted))
            refs += [ref for batch in counted if batch.weight for ref in batch.refs]
        assert len(set(turns)) == 1
        losses, counts = sum(sums, torch.zeros(()))
        mean = {name: sum(each[name] for each in gradients) / len(own) for name in gradients[0]}
        return Step(sorted(refs), float(losses.sum() / counts.sum()), cast(dict[str, Tensor], mean))

    def heldout(self, rank: int, world: int, sums: list[Tensor]) -> Validator:
        clips = self._sets.heldout()
        assert clips
        return Validator(clips, 3, self._encoder, self._scheduler, Rank(rank, world, CPU, sums=sums))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts(Stage.made(tmp_path_factory.mktemp("stage"), RECIPE))


@pytest.fixture(scope="module")
def undealt(parts: Parts) -> list[Step]:
    return parts.undealt()


@pytest.mark.parametrize("world", [1, 3, 5])
def test_an_epoch_has_the_same_samples_means_and_gradients_for_any_ranks(
    parts: Parts, undealt: list[Step], world: int
) -> None:
    dealt = parts.dealt(world)
    assert [step.refs for step in dealt] == [step.refs for step in undealt]
    for found, plain in zip(dealt, undealt, strict=True):
        assert found.loss == pytest.approx(plain.loss, abs=1e-6)
        assert max(value.abs().max().item() for value in plain.gradient.values()) > 1e-3
        for name, value in plain.gradient.items():
            torch.testing.assert_close(found.gradient[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize("world", [2, 5])
def test_ranks_that_do_not_divide_the_held_out_clips_measure_what_one_does(
    parts: Parts, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three clips. All ranks compute as many, or they would wait for one another."""
    monkeypatch.setattr("nextscene.training.validation._all_gather", lambda *_: dict.fromkeys(range(9), ""))
    measured = {}
    for ranks in (1, world):
        sums: list[Tensor] = []
        validators = [parts.heldout(rank, ranks, sums) for rank in range(ranks)]
        assert len({len(validator._clips) for validator in validators}) == 1
        for validator in validators:
            validator.loss(parts.model)
        measured[ranks] = sum(sums, torch.zeros(8)).tolist()
    assert measured[1][0] == 3
    assert measured[world] == pytest.approx(measured[1], abs=1e-6)


def test_the_cost_of_a_sample_is_that_of_its_shape(parts: Parts) -> None:
    """A clip of 9 frames has 144 tokens here, an image 64."""
    of_shape = {tuple(shape): cost for shape, cost in zip(parts.clips.shapes.tolist(), parts.costs, strict=True)}
    assert len(parts.costs) == 13 and set(of_shape) == {(9, 32, 24), (1, 32, 32)}
    assert len(set(parts.costs.tolist())) == 2
    assert of_shape[9, 32, 24] > of_shape[1, 32, 32] > 0


class OfTwo(World):
    """The first of two ranks. The other one's turns cost 30 and 5, and so did its work."""

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        return values + torch.tensor([1.0, 1.0, 0.0, 35.0, 0.0, 0.0, 0.0])

    def all_reduce_maxima(self, values: Tensor) -> Tensor:
        return torch.maximum(values, torch.tensor([30.0, 5.0], dtype=torch.float64))


def test_straggling_is_slowest_over_mean_work_and_fillers_are_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of 10 and 40: the 40 is a filler. So 70 is waited for, and 45 is the work of both."""
    model = SimpleNamespace(dtype=torch.float32, trains_transformer=True)
    throughput = Throughput(cast(Any, model), cast(Any, SimpleNamespace(wait_seconds=0.0)), OfTwo(0, 2, CPU))
    monkeypatch.setattr("nextscene.training.metrics.throughput.model_sizes", lambda *_: None)
    monkeypatch.setattr(
        "nextscene.training.metrics.throughput.flow_matching_flops", lambda _, clips, *__: StepFlops(clips, 0, 0, 0)
    )
    throughput.start_step()
    words = SimpleNamespace(ids=torch.zeros(1, 1), cut=0)
    for clips, weight in ((10, 1.0), (40, 0.0)):
        batch = SimpleNamespace(
            keys=["clip"] * clips, grid=SimpleNamespace(tokens=2), text_tokens=words, vae_encoded=0, weight=weight
        )
        throughput.count_micro_batch(cast(Any, batch))
    numbers = throughput.end_step()
    assert numbers["straggling"] == pytest.approx(70 / (45 / 2))
    assert numbers["samples_per_second"] * numbers["seconds"] == pytest.approx(11)
