"""Construction of a training stage: its data, model and optimizer, and the checkpoint that it starts from.

Tested in tests/training/test_trainer.py and tests/training/test_checkpoint.py.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from nextscene.common.config_loader import differences
from nextscene.common.errors import UsageError
from nextscene.shards.loading.deal import Dealing
from nextscene.shards.loading.loader import Loader, StateMismatch
from nextscene.shards.loading.mixture import Mixture
from nextscene.training import checkpoint
from nextscene.training.checkpoint_info import CheckpointInfo, latest, read_beginning
from nextscene.training.data.batches import BatchEncoder, BatchPreparer
from nextscene.training.data.datasets import MixDatasets
from nextscene.training.distributed.parallelize import parallelize
from nextscene.training.distributed.process_group import World
from nextscene.training.initial_weights import load_initial_weights
from nextscene.training.job import TrainingJob, TrainingObserver
from nextscene.training.metrics.costs import sample_costs
from nextscene.training.model.grid import Ratios
from nextscene.training.model.model_folders import architecture_config, check_originals
from nextscene.training.model.pretrained import new_bridge
from nextscene.training.model.prompter import Prompter
from nextscene.training.model.trainable import set_trainable, trained_parameters
from nextscene.training.model.unified import UnifiedModel
from nextscene.training.optimizer.build import build_optimizer
from nextscene.training.optimizer.ema import EMA
from nextscene.training.recipe import STAGES, Recipe, without_free_settings
from nextscene.training.rewards import REWARDS
from nextscene.training.rewards.base import Reward, RewardContext
from nextscene.training.stage import StageState, bridge_config
from nextscene.training.validation import Validator

_PARAMETERS = "trained_parameters.txt"


def build_stage(job: TrainingJob, world: World, observer: TrainingObserver) -> StageState:
    """Return the stage, resumed if it has a checkpoint. All ranks call this alike.

    Raise UsageError, before anything is written, if recipe, data, models, checkpoint and processes do not fit together.
    The modules that ask Claude are imported only if the recipe needs them.
    """
    recipe, pretrained = job.recipe, job.pretrained
    _check_ranks(recipe, world)
    if recipe.is_reinforcement_learning:
        REWARDS[recipe.reward.kind].load().check(job, world)
    resumed = world.from_leader(latest(job.checkpoints))
    if resumed and not job.resume:
        raise UsageError(f"{job.folder} holds a run at {resumed.name}; continue with `resume`, or choose another `out`")
    begin = resumed or job.init
    before = read_beginning(begin) if begin else None
    check_originals(job.pretrained.qwen, job.pretrained.ltx, before.parameters if before else ())
    if before:
        _check_fits(job, before, resumed is not None, begin)

    vae = pretrained.vae(_dtype(job)).to(world.device)
    ratios = Ratios.of(vae)
    sets = MixDatasets(recipe, job.data, pretrained, observer.note if world.is_leader else lambda _: None, job.latents)
    training, heldout = sets.training(ratios), sets.heldout()

    model = _build_model(job, ratios, world)
    if before and before.bridge != bridge_config(model):
        raise UsageError(f"{begin} has a bridge of {before.bridge}, this recipe one of {bridge_config(model)}")
    parallelize(model, recipe.parallel, world)
    learned = trained_parameters(model)
    bridge = {name for name, _ in model.named_parameters() if name.startswith("bridge.")}
    if begin and before and not resumed:
        load_initial_weights(begin, before, dict(model.named_parameters()))

    scheduler = pretrained.scheduler()
    costs = sample_costs(model, architecture_config(vae.config), recipe, training.shapes, sets.encoded)
    loader = _build_loader(recipe, training, world, Dealing(recipe.data.global_batch, costs))
    prompter = Prompter(pretrained.tokenizer(), recipe.model.max_tokens - recipe.model.queries)
    encoder = BatchEncoder(vae, prompter, recipe.mix, world.device)
    context = RewardContext(job, world, training, encoder, model.language, lambda: observer.stopping)
    state = StageState(
        job,
        world,
        model,
        trained_parameters=learned,
        saved_parameters=sorted({*learned, *bridge, *(before.parameters if before else [])}),
        optimizer=build_optimizer(learned, recipe.optimizer),  # Prodigy measures distance from the present weights
        ema=EMA(learned, recipe.optimizer.ema, warm_up=True) if recipe.optimizer.ema else None,
        reference=EMA(learned, 1.0) if recipe.is_reinforcement_learning else None,
        loader=loader,
        encoder=encoder,
        scheduler=scheduler,
        batches=BatchPreparer(loader, encoder, recipe.objective, scheduler, recipe.seed),
        reward=None,
        heldout=_build_validator(recipe, heldout, encoder, scheduler, world),
        seen=_build_validator(recipe, training, encoder, scheduler, world),
        step=0,
        steps=recipe.total_steps(len(training)),
        observer=observer,
    )
    if resumed and before:
        _resume(state, resumed, before)
        if state.step > state.steps:
            raise UsageError(f"{resumed} is beyond the {state.steps} steps that are wanted; give a larger `steps`")
    if world.is_leader:
        _report(state, sets.encoded, begin, observer)
    if recipe.is_reinforcement_learning:
        state.reward = build_reward(context)  # last: it has threads, which nobody would end if another part failed
    return state


def _check_ranks(recipe: Recipe, world: World) -> None:
    try:
        recipe.check_ranks(world.size)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if world.size % recipe.parallel.replicas:
        raise UsageError(
            f"parallel.replicas {recipe.parallel.replicas}: {world.size} processes are not a multiple of it"
        )


def build_reward(context: RewardContext) -> Reward:
    """Return the reward that the recipe names."""
    return REWARDS[context.job.recipe.reward.kind].load().build(context)


def _build_loader(recipe: Recipe, clips: Mixture, world: World, dealing: Dealing) -> Loader:
    data = recipe.data
    return Loader(
        clips,
        micro_batch=data.micro_batch,
        seed=recipe.seed,
        rank=world.rank,
        world=world.size,
        workers=data.workers,
        window=data.window,
        max_bad_clips=data.max_bad_clips,
        dealing=dealing,
    )


def _build_validator(
    recipe: Recipe,
    clips: Mixture | None,
    encoder: BatchEncoder,
    scheduler: FlowMatchEulerDiscreteScheduler,
    world: World,
) -> Validator | None:
    max_clips = recipe.logging.evaluate_clips
    return Validator(clips, max_clips, encoder, scheduler, world) if clips and max_clips else None


def _dtype(job: TrainingJob) -> torch.dtype:
    """Return the precision of computation. Mixed precision keeps trained weights in float32 all the same."""
    return torch.bfloat16 if job.recipe.parallel.precision == "bf16" else torch.float32


def _build_model(job: TrainingJob, ratios: Ratios, world: World) -> UnifiedModel:
    """Return the model, its trained parts in float32, its frozen parts in the precision of computation."""
    recipe, pretrained, dtype = job.recipe, job.pretrained, _dtype(job)
    language, transformer = pretrained.language(dtype), pretrained.transformer(dtype)
    bridge = new_bridge(language, transformer, recipe.model.queries, recipe.model.hidden, recipe.seed)
    bridge.connector.bf16_products = recipe.parallel.connector == "bf16"
    model = UnifiedModel(language, bridge, transformer, ratios, dtype)
    set_trainable(model, recipe.trainable)
    if any(parameter.requires_grad for parameter in transformer.parameters()):
        transformer.float()
    return model.to(world.device)


def _check_fits(job: TrainingJob, before: CheckpointInfo, same_run: bool, begin: Path | None) -> None:
    recipe, stages = job.recipe, list(STAGES)
    if before.model != job.pretrained.fingerprint:
        raise UsageError(f"{begin} was trained from other models than `qwen` and `ltx` name; name those")
    if same_run:
        decides, defaults = recipe.identity_settings(), Recipe().all_settings()
        recorded = without_free_settings(before.determining)
        newer = {name: defaults.get(name) for name in decides if name not in recorded}
        pairs = differences({**newer, **recorded}, decides)
        if pairs:
            listed = "; ".join(f"{name} is {now!r}, was {then!r}" for name, (then, now) in pairs.items())
            raise UsageError(
                f"{begin} is of a run with other settings: {listed}. Run with the same, or choose another `out`"
            )
    elif before.stage in stages and stages.index(before.stage) > stages.index(recipe.stage):
        raise UsageError(
            f"{begin} is of the stage {before.stage}, which comes after {recipe.stage}; name one of a stage before"
        )


def _resume(state: StageState, checkpoint_folder: Path, info: CheckpointInfo) -> None:
    """Load model, optimizer, averages and the position in the data from a checkpoint of this stage."""
    checkpoint.load(checkpoint_folder, state.tensors())
    try:
        state.loader.load_state_dict(info.loader)
    except StateMismatch as error:
        raise UsageError(f"{checkpoint_folder} does not fit this `data`: {error}") from error
    state.step = info.step
    if state.ema:
        state.ema.warm_up = info.average_updates is not None
        state.ema.updates = info.step if info.average_updates is None else info.average_updates


def _report(state: StageState, encoded: bool, begin: Path | None, observer: TrainingObserver) -> None:
    """Tell the observer which parameters are trained, and write their names to a file."""
    count = sum(parameter.numel() for parameter in state.trained_parameters.values())
    observer.note(f"{count:,} parameters are trained, all others are frozen: {state.job.folder / _PARAMETERS}")
    observer.note(f"data from {'latents' if encoded else 'clips, encoded as they are read'}")
    observer.note(f"beginning with {begin or 'the original weights'}")
    state.job.folder.mkdir(parents=True, exist_ok=True)
    names = "".join(f"{name} {'×'.join(map(str, value.shape))}\n" for name, value in state.trained_parameters.items())
    (state.job.folder / _PARAMETERS).write_text(names, encoding="utf-8")
