"""All that a stage needs, put together: data, model, optimiser, and the state that it goes on from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import MARK
from nextscene.shards.loading.loader import Loader, StateMismatch
from nextscene.shards.loading.mixture import Mixture
from nextscene.training import checkpoint
from nextscene.training.checkpoint_info import CheckpointInfo, latest
from nextscene.training.data.batches import BatchEncoder, BatchPreparer
from nextscene.training.data.datasets import MixDatasets
from nextscene.training.distributed.parallelize import parallelize
from nextscene.training.distributed.process_group import World
from nextscene.training.job import TrainingJob, TrainingObserver
from nextscene.training.model.grid import Ratios
from nextscene.training.model.model_folders import architecture_config
from nextscene.training.model.pretrained import new_bridge
from nextscene.training.model.prompter import Prompter
from nextscene.training.model.trainable import describe_parameters, set_trainable, trained_parameters
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.optimizer.build import build_optimizer, state_tensors
from nextscene.training.optimizer.ema import EMA
from nextscene.training.recipe import STAGES, Recipe
from nextscene.training.rewards.base import Reward
from nextscene.training.rewards.retrieval import Retrieval
from nextscene.training.validation import Validator


@dataclass
class StageState:
    """A stage, ready for its next step. `carried` names the parameters that no original holds.

    Those are all that this stage and those before it trained, and the whole bridge, trained or not. `start` keeps the
    weights that the stage began with, and `reward` judges, in the stage `rl`.
    """

    job: TrainingJob
    world: World
    model: UnifiedModel
    trained_parameters: dict[str, nn.Parameter]
    saved_parameters: list[str]
    optimiser: torch.optim.Optimizer
    ema: EMA | None
    reference: EMA | None
    loader: Loader
    encoder: BatchEncoder
    scheduler: FlowMatchEulerDiscreteScheduler
    batches: BatchPreparer
    reward: Reward | None
    heldout: Validator | None
    seen: Validator | None
    step: int
    steps: int
    gradient_accumulation_steps: int

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint holds, by name, as it lies in memory."""
        named = dict(self.model.named_parameters())
        found = {f"model.{name}": named[name].detach() for name in self.saved_parameters}
        found |= {
            f"optimiser.{name}": value for name, value in state_tensors(self.optimiser, self.trained_parameters).items()
        }
        if self.ema:
            found |= {f"average.{name}": value for name, value in self.ema.shadows.items()}
        if self.reference:
            found |= {f"start.{name}": value for name, value in self.reference.shadows.items()}
        return found

    def about(self, step: int, loader: Mapping[str, int]) -> CheckpointInfo:
        """`loader` is the state of the data when that many steps had been taken."""
        recipe = self.job.recipe
        return CheckpointInfo(
            recipe=recipe.name,
            stage=recipe.stage,
            step=step,
            samples=step * recipe.data.global_batch,
            world=self.world.size,
            model=self.job.pretrained.fingerprint,
            bridge=bridge_config(self.model),
            parameters=self.saved_parameters,
            averaged=sorted(self.ema.shadows) if self.ema else [],
            determining=recipe.identity_settings(),
            loader=dict(loader),
        )

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """The model as it is evaluated and handed on: with the averaged weights where there are any."""
        if self.ema:
            with self.ema.swapped_in():
                yield
        else:
            yield

    @contextmanager
    def reference_weights(self) -> Iterator[None]:
        """The model as the stage `rl` began with it."""
        assert self.reference  # noqa: S101 – that stage has it
        with self.reference.swapped_in():
            yield

    def result(self) -> dict[str, Tensor]:
        """Whole tensors, on the CPU, of all that was trained; on the leading process, elsewhere none."""
        with self.ema_weights():
            named = dict(self.model.named_parameters())
            whole: dict[str, Tensor] = {}
            for name in self.saved_parameters:
                value = named[name].detach()
                full = value.full_tensor() if isinstance(value, DTensor) else value
                if self.world.is_leader:
                    whole[name] = full.to("cpu", copy=True)
        return whole


def bridge_config(model: UnifiedModel) -> dict[str, Any]:
    return architecture_config(model.bridge.config)


def build_stage(job: TrainingJob, world: World, observer: TrainingObserver) -> StageState:
    """Raises UsageError for whatever does not fit, before anything is written.

    What it takes to ask Claude is imported only where that is to be asked.
    """
    recipe, pretrained = job.recipe, job.pretrained
    accumulation = _accumulation(recipe, world)
    if recipe.asks_claude:
        from nextscene.training.rewards.consistency import check_terms

        check_terms(recipe.reward, job.prices, world)
    going_on = world.from_leader(latest(job.checkpoints))
    if going_on and not job.resume:
        raise UsageError(f"{job.folder} holds a run at {going_on.name}; go on with --resume, or choose another --out")
    begin = going_on or job.init
    before = CheckpointInfo.read(begin) if begin else None
    if before:
        _check_fits(job, before, going_on is not None, begin)

    vae = pretrained.vae(_dtype(job)).to(world.device)
    ratios = Ratios.of(vae)
    sets = MixDatasets(recipe, job.data, pretrained, observer.note if world.is_leader else lambda _: None)
    training, heldout = sets.training(ratios), sets.heldout()

    model = _model(job, ratios, world)
    if before and before.bridge != bridge_config(model):
        raise UsageError(f"{begin} has a bridge of {before.bridge}, this recipe one of {bridge_config(model)}")
    parallelize(model, recipe.parallel, world)
    learnt = trained_parameters(model)
    bridge = {name for name, _ in model.named_parameters() if name.startswith("bridge.")}
    carried = sorted({*learnt, *bridge, *(before.parameters if before else [])})
    if begin and before and not going_on:
        checkpoint.load_weights(begin, before, dict(model.named_parameters()))
    chosen = build_optimizer(learnt, recipe.optimiser)  # now: Prodigy measures from where the weights are
    average = EMA(learnt, recipe.optimiser.ema) if recipe.optimiser.ema else None
    start = EMA(learnt, 1.0) if recipe.stage == "rl" else None

    data, scheduler = recipe.data, pretrained.scheduler()
    loader = Loader(
        training,
        micro_batch=data.micro_batch,
        seed=recipe.seed,
        rank=world.rank,
        world=world.size,
        workers=data.workers,
        window=data.window,
        skip_at_most=data.skip_at_most,
    )
    prompter = Prompter(pretrained.tokenizer(), recipe.model.max_tokens - recipe.model.queries)
    encoder = BatchEncoder(vae, prompter, recipe.mix, world.device)
    batches = BatchPreparer(loader, encoder, recipe.objective, scheduler, recipe.seed)
    reward = build_reward(job, world, training, encoder) if recipe.stage == "rl" else None
    panels = {
        name: Validator(clips, recipe.keeping.evaluate_clips, encoder, scheduler, world)
        if clips and recipe.keeping.evaluate_clips
        else None
        for name, clips in {"heldout": heldout, "seen": training}.items()
    }
    state = StageState(
        job,
        world,
        model,
        learnt,
        carried,
        chosen,
        average,
        start,
        loader,
        encoder,
        scheduler,
        batches,
        reward,
        **panels,
        step=0,
        steps=recipe.total_steps(len(training)),
        gradient_accumulation_steps=accumulation,
    )
    if going_on and before:
        checkpoint.load(going_on, state.tensors())
        try:
            loader.load_state_dict(before.loader)
        except StateMismatch as error:
            raise UsageError(f"{going_on} does not go on with this --data: {error}") from error
        state.step = before.step
    if world.is_leader:
        _tell(state, sets.encoded, begin, observer)
    return state


def _accumulation(recipe: Recipe, world: World) -> int:
    try:
        accumulation = recipe.gradient_accumulation_steps(world.size)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if world.size % recipe.parallel.replicas:
        raise UsageError(f"parallel.replicas {recipe.parallel.replicas}: {world.size} processes are no multiple of it")
    return accumulation


def build_reward(job: TrainingJob, world: World, clips: Mixture, encoder: BatchEncoder) -> Reward:
    """What the recipe names."""
    settings = job.recipe.reward
    if not job.recipe.asks_claude:
        return Retrieval(clips, settings.others, encoder)
    from nextscene.training.rewards.captioner import QwenCaptioner
    from nextscene.training.rewards.consistency import CausalConsistency

    own = settings.captioner == "qwen"
    captioner = QwenCaptioner(job.pretrained.qwen, settings.judge, world.device) if own else None
    run = Storage.at(job.run)
    if run.stat(MARK):  # as the command that trains has claimed it
        run = run.with_anchor(MARK)
    return CausalConsistency(settings, run.subfolder(job.recipe.name), job.prices, job.budget, world, captioner)


def _dtype(job: TrainingJob) -> torch.dtype:
    return torch.bfloat16 if job.recipe.parallel.precision == "bf16" else torch.float32


def _model(job: TrainingJob, ratios: Ratios, world: World) -> UnifiedModel:
    """With what is trained in float32, and what is frozen as it is computed in."""
    recipe, pretrained, dtype = job.recipe, job.pretrained, _dtype(job)
    language, transformer = pretrained.language(dtype), pretrained.transformer(dtype)
    bridge = new_bridge(language, transformer, recipe.model.queries, recipe.model.hidden, recipe.seed)
    model = UnifiedModel(language, bridge, transformer, ratios, dtype)
    set_trainable(model, recipe.trainable)
    if any(parameter.requires_grad for parameter in transformer.parameters()):
        transformer.float()
    return model.to(world.device)


def _check_fits(job: TrainingJob, before: CheckpointInfo, same_run: bool, begin: Path | None) -> None:
    recipe = job.recipe
    if before.model != job.pretrained.fingerprint:
        raise UsageError(f"{begin} was trained from other models than --qwen and --ltx name; name those")
    if same_run:
        now, then = recipe.identity_settings(), before.determining
        different = [
            f"{name} is {now.get(name)!r}, was {then.get(name)!r}"
            for name in sorted(now.keys() | then.keys())
            if now.get(name) != then.get(name)
        ]
        if different:
            raise UsageError(
                f"{begin} is of a run with other settings: {'; '.join(different)}. Run with the same, or choose another"
                " --out"
            )
    elif STAGES.index(before.stage) > STAGES.index(recipe.stage):
        raise UsageError(
            f"{begin} is of the stage {before.stage}, which comes after {recipe.stage}; name one of a stage before"
        )


def _tell(state: StageState, encoded: bool, begin: Path | None, observer: TrainingObserver) -> None:
    """What is trained, exactly: users of such models ask for nothing more often."""
    lines = describe_parameters(state.trained_parameters)
    count = sum(parameter.numel() for parameter in state.trained_parameters.values())
    observer.note(f"{count:,} parameters are trained, all else is frozen:")
    for line in lines:
        observer.note(f"  {line}")
    observer.note(f"data from {'latents' if encoded else 'clips, encoded as they are read'}")
    observer.note(f"beginning with {begin or 'the original weights'}")
    state.job.folder.mkdir(parents=True, exist_ok=True)
    names = "".join(f"{name} {'×'.join(map(str, value.shape))}\n" for name, value in state.trained_parameters.items())
    (state.job.folder / "trained_parameters.txt").write_text(names, encoding="utf-8")
