"""The training job that the flags of `train` describe, checked without torch and before anything is written.

Tested in tests/pipelines/test_train.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path

from nextscene.common.errors import UsageError
from nextscene.common.ray_cluster.cluster import inside_job
from nextscene.common.typed_path import check_typed_path
from nextscene.pipelines.cli.paths import check_dataset
from nextscene.training.checkpoint_info import CheckpointInfo, checkpoints, latest, read_beginning
from nextscene.training.data.mix_names import check_names
from nextscene.training.job import TrainingJob
from nextscene.training.metrics.wandb_log import check_wandb
from nextscene.training.model.hub import LTX, QWEN, model_folder
from nextscene.training.model.model_folders import check_openable, check_originals
from nextscene.training.model.pretrained import PretrainedModels
from nextscene.training.recipe import Recipe
from nextscene.training.resumed_recipe import resumed_recipe
from nextscene.training.summary import StageSummary

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"
_NEEDED = ("torch", "transformers", "diffusers")


def make_job(
    recipe: Recipe, data: Mapping[str, str], out: Path, qwen: Path, ltx: Path, init: str | None, resume: bool
) -> TrainingJob:
    """Return the job. Check all that can be checked without torch, before that is loaded and --out is claimed.

    Raise UsageError for paths, data, models or checkpoints that do not fit, ModuleNotFoundError if a package is
    missing.
    """
    _check_absolute("--out", out)
    check_names(recipe, data)
    run = out.absolute()
    newest = latest(checkpoints(run, recipe.name))
    if newest and not resume:
        raise UsageError(
            f"{run / recipe.name} holds a run at {newest.name}; continue with --resume, or choose another --out"
        )
    begin = None if newest else _beginning(recipe, run, init)
    start = newest or begin
    trained = read_beginning(start).parameters if start else ()
    for place in data.values():
        check_dataset("--data", place, "train")
    qwen, ltx = model_folder(qwen, QWEN), model_folder(ltx, LTX)
    for flag, path in {"--qwen": qwen, "--ltx": ltx}.items():
        _check_absolute(flag, path)
    check_originals(qwen, ltx, trained)
    check_openable(qwen, ltx)
    for name in _NEEDED:
        if find_spec(name) is None:
            raise ModuleNotFoundError(name=name)
    if recipe.logging.wandb:
        check_wandb(recipe.logging.wandb)
    return TrainingJob(recipe, data, run, PretrainedModels(qwen.absolute(), ltx.absolute()), begin, resume)


def _check_absolute(flag: str, path: Path) -> None:
    if inside_job() and not path.is_absolute():
        raise UsageError(f"{flag} {path}: inside a cluster job paths must be absolute")


def _beginning(recipe: Recipe, out: Path, init: str | None) -> Path | None:
    """Return the checkpoint or export whose weights training begins with; None if it begins with the pretrained models.

    Raise UsageError if the stage before is not finished, or 'previous' is given and there is none.
    """
    if init not in (None, "previous"):
        return Path(check_typed_path(init)).expanduser().absolute()
    if not recipe.after:
        if init:
            raise UsageError(f"--init previous: the recipe {recipe.name} follows no other; leave --init out")
        return None
    before = StageSummary.read(out / recipe.after)
    newest = latest(checkpoints(out, recipe.after))
    if before is None or newest is None:
        raise UsageError(
            f"{recipe.name} follows {recipe.after}, which is not finished in {out}; train that first, or name a"
            " checkpoint or an export with --init"
        )
    return newest


def places_of(flag: str, recipe: Recipe, given: tuple[str, ...]) -> dict[str, str]:
    """Return the name of a dataset of the mix → the location that `flag` gives for it."""
    names = [mix.name for mix in recipe.mix]
    places: dict[str, str] = {}
    for one in given:
        name, equals, place = one.partition("=")
        if not equals or "/" in name:
            if len(names) > 1:
                raise UsageError(f"{flag} {one}: say which dataset of the mix it is, as {names[0]}={one}")
            name, place = names[0], one
        if name in places:
            raise UsageError(f"{flag} {name} is given twice")
        if inside_job() and "://" not in place and not Path(place).is_absolute():
            raise UsageError(f"{flag} {place}: inside a cluster job paths must be absolute")
        places[name] = place
    return places


def recipe_file(recipe: str | None, stage: str) -> Path:
    candidates = [RECIPES / f"{recipe or stage}.toml", RECIPES / (recipe or stage) / f"{stage}.toml"]
    if recipe and (given := Path(check_typed_path(recipe)).expanduser()).is_file():
        return given
    for file in candidates:
        if file.is_file():
            return file
    known = sorted(file.stem for file in RECIPES.glob("*.toml")) + sorted(
        folder.name for folder in RECIPES.iterdir() if folder.is_dir()
    )
    raise UsageError(f"--recipe {recipe or stage}: no such file, and no recipe here; there are {', '.join(known)}")


def recipe_to_resume(recipe: Recipe, given: Collection[str], out: Path) -> tuple[Recipe, list[str]]:
    """Return the recipe to continue with, if there is a run to continue, and a line for each of its differences."""
    newest = latest(checkpoints(out.absolute(), recipe.name))
    return resumed_recipe(recipe, given, CheckpointInfo.read(newest)) if newest else (recipe, [])
