"""The recipe that a run continues with: what it began with, but what is given anew."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from nextscene.common.config_loader import SettingsError
from nextscene.training.checkpoint_info import CheckpointInfo
from nextscene.training.config import TimestepDensity
from nextscene.training.recipe import Recipe
from nextscene.training.resumed_recipe import resumed_recipe
from tests.training.objectives.grpo.toys import RL
from tests.training.stages import SMALL

BEGAN = replace(SMALL, steps=100, optimizer=replace(SMALL.optimizer, lr=0.5))


def info(recipe: Recipe, **changes: Any) -> CheckpointInfo:
    """What a run by this recipe records, after a way through JSON."""
    decides, settings = recipe.identity_settings(), recipe.all_settings()
    written = CheckpointInfo(recipe.name, recipe.stage, 1, 4, 1, "", {}, [], [], decides, {}, settings=settings)
    return CheckpointInfo(**{**json.loads(json.dumps(asdict(written))), **changes})


@pytest.mark.parametrize("recipe", [BEGAN, RL])
def test_a_run_goes_on_with_the_settings_that_it_began_with(recipe: Recipe) -> None:
    assert resumed_recipe(recipe, [], info(recipe)) == (recipe, [])
    changed = replace(recipe, steps=3, optimizer=replace(recipe.optimizer, lr=0.25))
    resumed, lines = resumed_recipe(changed, [], info(recipe))
    assert resumed == recipe
    assert lines == [
        f"the recipe has optimizer.lr = 0.25; the run keeps {recipe.optimizer.lr}, which it began with, unless"
        " `optimizer.lr` is given",
        f"the recipe has steps = 3; the run keeps {recipe.steps}, which it began with, unless `steps` is given",
    ]


def test_what_is_given_anew_is_taken_and_named() -> None:
    changed = replace(BEGAN, steps=3, optimizer=replace(BEGAN.optimizer, lr=0.25))
    resumed, lines = resumed_recipe(changed, ["steps", "optimizer.lr"], info(BEGAN))
    assert (resumed, lines) == (changed, ["optimizer.lr is now 0.25, was 0.5", "steps is now 3, was 100"])


def test_a_setting_that_is_newer_than_the_run_has_its_default() -> None:
    recipe = replace(BEGAN, objective=replace(BEGAN.objective, density=TimestepDensity(tails=0.1)))
    before = info(BEGAN)
    for settings in (before.settings, before.determining):
        del settings["objective.density.tails"]
    assert resumed_recipe(recipe, [], before)[0] == BEGAN


@pytest.mark.parametrize("recipe", [BEGAN, RL])
def test_a_run_that_recorded_only_its_identity_takes_the_rest_from_the_recipe(recipe: Recipe) -> None:
    changed = replace(recipe, seed=9, optimizer=replace(recipe.optimizer, lr=0.25))
    fixed_then = {**recipe.identity_settings(), "data.micro_batch": recipe.data.micro_batch}
    resumed, lines = resumed_recipe(changed, [], info(recipe, settings={}, determining=fixed_then))
    assert resumed == replace(changed, seed=recipe.seed)
    assert lines == ["the recipe has seed = 9; the run keeps 0, which it began with, unless `seed` is given"]


def test_settings_that_do_not_go_together_are_refused() -> None:
    recipe = replace(BEGAN, data=replace(BEGAN.data, micro_batch=3, global_batch=6))
    with pytest.raises(SettingsError, match=r"data\.global_batch 4 is not a multiple of data\.micro_batch 3"):
        resumed_recipe(recipe, ["data.micro_batch"], info(BEGAN))
