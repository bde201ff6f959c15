"""`nextscene train`: training of one stage of the model on datasets that `nextscene build` made."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from nextscene.pipelines.cli import startup  # noqa: F401  before all that may be missing, and all that takes its time

# isort: split
import os
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import click

from nextscene.common.config_loader import flatten
from nextscene.common.errors import UsageError
from nextscene.common.run_lock import hold_lock
from nextscene.common.storage import Storage
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.spending.prices import Prices
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.command import Command, renamed
from nextscene.pipelines.cli.exit_codes import GoOn, handle_errors
from nextscene.pipelines.cli.flag_names import with_flags
from nextscene.pipelines.cli.generation import scenes_in
from nextscene.pipelines.cli.options import chosen, dollars, given_settings, options
from nextscene.pipelines.cli.paths import EXISTING_FILE, LocalPath, check_out
from nextscene.pipelines.cli.shared_options import ltx_option, prices_option, ray_address_option
from nextscene.pipelines.cli.stage_summary import print_summary
from nextscene.pipelines.cli.step_progress import StepProgress
from nextscene.pipelines.cli.stop_signals import STOPS
from nextscene.pipelines.cli.train_on_ray import train_supervised
from nextscene.pipelines.cli.training_job import RECIPES, make_job, places_of, recipe_file, recipe_to_resume
from nextscene.shards.format.folder_mark import RUN, claimed
from nextscene.training.distributed.restarts import RestartNotice, delete_notice
from nextscene.training.distributed.torchrun_env import rank_and_world
from nextscene.training.errors import TrainingStopped
from nextscene.training.job import TrainingJob
from nextscene.training.recipe import STAGES, Recipe
from nextscene.training.summary import StageSummary


def _set_by_recipes() -> frozenset[str]:
    """Return the settings that at least one of our recipes sets: their default depends on the recipe."""
    files = RECIPES.rglob("*.toml")
    return frozenset(chain.from_iterable(flatten(tomllib.loads(file.read_text(encoding="utf-8"))) for file in files))


_NOT_ASKED = ("reward.judge.rounds", "reward.judge.prompt_version")
"""Settings without a flag: a reward asks about each video once, and a run keeps its version of the prompts."""


@click.command(cls=Command)
@click.option("--stage", "stage", type=click.Choice(list(STAGES)), required=True, help="Stage of the training.")
@click.option(
    "--data",
    multiple=True,
    required=True,
    metavar="[NAME=]OUT",
    help="A dataset; NAME is its name in the mix of the recipe. Once for each name.",
)
@click.option(
    "--latents",
    multiple=True,
    metavar="[NAME=]DIR",
    help="Latents of a dataset that are not below it.  [default: those below it, if they fit]",
)
@click.option(
    "--out",
    type=LocalPath(),
    required=True,
    help="Folder of runs; this one goes into a folder in it, named as the recipe.",
)
@click.option(
    "--recipe",
    help="A TOML file, or the name of a recipe here: tiny, connector, generator-2, …  [default: that of --stage]",
)
@click.option(
    "--qwen",
    type=LocalPath(),
    required=True,
    help="Qwen2.5-VL: a folder in the layout of Qwen/Qwen2.5-VL-7B-Instruct, or such an id on the Hugging Face hub.",
)
@ltx_option
@click.option(
    "--init",
    help="Checkpoint or export to begin with, or 'previous'.  [default: the last checkpoint of the stage that the"
    " recipe follows]",
)
@click.option("--resume", is_flag=True, help="Continue from the newest checkpoint of this stage, if there is one.")
@click.option(
    "--launcher",
    type=click.Choice(["process", "ray"]),
    default="process",
    show_default=True,
    help="process: this process, or all those of torchrun; ray: workers of Ray Train.",
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Workers, with --launcher ray.")
@click.option(
    "--failures",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="Lost workers to replace, with --launcher ray.",
)
@click.option(
    "--budget-usd",
    type=click.FloatRange(0, min_open=True),
    help="Most to spend on the judge of --stage rl.  [default: no limit]",
)
@prices_option
@ray_address_option
@click.option(
    "--sample-prompts",
    type=EXISTING_FILE,
    help="A text file with a prompt on each line: each evaluation makes a video for each, in the prompt of the mix's"
    " first dataset.",
)
@click.option("--judge-model", help=f"Model of the judge of --stage rl.  [default: {ClaudeConfig().model}]")
@options(Recipe, without=("name", "stage", "after", "reward.judge.model", *_NOT_ASKED), in_recipes=_set_by_recipes())
@renamed("--reward.judge.model", "--judge-model")
@handle_errors(
    GoOn("what is in checkpoints is kept", "run the same command again with --resume to continue from the last one")
)
def main(
    stage: str,
    data: tuple[str, ...],
    latents: tuple[str, ...],
    out: Path,
    recipe: str | None,
    qwen: Path,
    ltx: Path,
    init: str | None,
    resume: bool,
    launcher: str,
    workers: int,
    failures: int,
    budget_usd: float | None,
    prices: Path | None,
    ray_address: str | None,
    sample_prompts: Path | None,
    judge_model: str | None,
    **flags: Any,
) -> None:
    """Train one stage of the next-scene model.

    The stages are connector, generator, sft and rl, in that order. Under torchrun all processes train together; with
    --launcher ray, Ray's workers do. Ctrl-C, or another signal that asks the command to end, leaves a checkpoint.

    The stage's folder below --out gets checkpoints, metrics.jsonl, TensorBoard's events, curves.png and samples;
    report.html in --out shows them, and its subfolder export gets the model for from_pretrained. The stage rl asks
    Claude, which costs money and is limited by --budget-usd, unless --reward.kind is retrieval; everything it made is
    in candidates.

    The flags from --seed on are lines of the recipe. A recipe default is the value of a recipe that does not have the
    line.

    Exit codes: 0 done, 1 a dataset is damaged, 2 wrong usage, 3 stopped by a loss that is not a number, the budget, the
    account, storage or the machine, or by SIGTERM, SIGHUP or SIGUSR1, 130 by Ctrl-C. Torchrun itself exits with 1 for
    all of these but 0.
    """
    flags |= {"reward__judge__model": judge_model}
    settings = chosen(Recipe, recipe_file(recipe, stage), flags)
    if settings.stage != stage:
        raise UsageError(
            f"--stage {stage}: the recipe {settings.name} is of the stage {settings.stage}; name another --recipe"
        )
    if word := RestartNotice.read(out / settings.name):
        console.fail(f"{word.why}; no restart is wanted after that, so the one by torchrun ends at once", word.code)
    places, encoded = places_of("--data", settings, data), places_of("--latents", settings, latents)
    if unknown := encoded.keys() - places.keys():
        raise UsageError(f"--latents {min(unknown)}=…: no --data has this name; give the latents the name of theirs")
    budget, known = dollars("--budget-usd", budget_usd), Prices.load(prices)
    if launcher == "process":
        rank_and_world(meeting=True)
    if _leads():
        check_out(out, RUN, *places.values(), *encoded.values())
    if resume:
        settings, changes = recipe_to_resume(settings, given_settings(Recipe, flags), out)
        for change in changes if _leads() else ():
            console.err.print(with_flags(change), markup=False)
    for flag, value in {"--budget-usd": budget_usd, "--prices": prices}.items():
        if value is not None and not settings.asks_claude:
            raise UsageError(f"{flag}: only the reward causal_consistency of --stage rl costs money; leave {flag} out")
    job = make_job(settings, places, out, qwen, ltx, init, resume)
    prompts = tuple(scenes_in("--sample-prompts", sample_prompts)) if sample_prompts else ()
    job = replace(job, budget=budget, prices=known, latents=encoded, prompts=prompts)
    with _alone(job) as owned:
        summary = _train(owned, launcher, workers, failures, ray_address)
    if not summary.finished:
        if _leads():
            console.err.print(f"stopped at step {summary.step} of {summary.steps}; continue with --resume")
        sys.exit(_stopped())
    if _leads():
        print_summary(summary, out)


@contextmanager
def _alone(job: TrainingJob) -> Iterator[TrainingJob]:
    """Lock --out, so that no other training writes into it. Only the process of rank 0 takes the lock."""
    if not _leads():
        yield job
        return
    owner = uuid.uuid4().hex
    with claimed(Storage.at(job.run), RUN) as run, hold_lock(run, owner):
        delete_notice(job.folder)
        yield replace(job, owner=owner)


@contextmanager
def _not_restarted(folder: Path) -> Iterator[None]:
    """Prevent torchrun from restarting a training that was stopped, by a signal or by TrainingStopped."""
    try:
        yield
    except (KeyboardInterrupt, TrainingStopped) as stop:
        RestartNotice.write(folder, _stopped(), str(stop))
        raise


def _stopped() -> int:
    """Return the exit code of a process that was stopped, or that ends because another process was."""
    return STOPS.code if STOPS.first else console.STOPPED


def _train(job: TrainingJob, launcher: str, workers: int, failures: int, ray_address: str | None) -> StageSummary:
    if launcher == "ray":
        return train_supervised(job, workers, failures, ray_address)
    if workers > 1:
        raise UsageError("--workers goes with --launcher ray; for several processes here: torchrun --nproc-per-node N")
    from nextscene.training.distributed.process_group import process_group
    from nextscene.training.trainer import train

    watch = StepProgress(job.recipe.name)
    with process_group(job.recipe.parallel.timeout) as world, watch.stopped_by_signals(), _not_restarted(job.folder):
        summary = train(job, world, watch)
        if not summary.finished:
            RestartNotice.write(job.folder, _stopped(), f"stopped at step {summary.step} of {summary.steps}")
        return summary


def _leads() -> bool:
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    main()
