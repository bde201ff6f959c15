"""The recipe of a run that is resumed: the settings that it recorded, but those that are given anew."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from nextscene.common.config_loader import differences, from_names
from nextscene.training.checkpoint_info import CheckpointInfo
from nextscene.training.recipe import Recipe


def resumed_recipe(recipe: Recipe, given: Collection[str], before: CheckpointInfo) -> tuple[Recipe, list[str]]:
    """Return the recipe to resume the run of `before` with, and a line for each difference from what it recorded.

    `recipe` is the one that the caller has, and `given` the dotted names of its settings that were given for this
    attempt, such as flags: only those are taken from it. So a rate or a length that was given when the run began stays
    unless it is given anew, and what changed in a recipe's file since then is named. A setting that the run does not
    know, because it is newer, has its default.

    Raise SettingsError if the settings do not fit together. `training.build_stage` checks whether they may
    change at all.
    """
    wanted, recorded = recipe.all_settings(), _recorded(recipe, before)
    began = from_names(Recipe, recorded, "settings")
    resumed = from_names(Recipe, {**recorded, **{name: wanted[name] for name in given}}, "settings")
    changed = differences(began.all_settings(), resumed.all_settings())
    ignored = differences(wanted, resumed.all_settings())
    return resumed, [
        *(f"{name} is now {now!r}, was {then!r}" for name, (then, now) in changed.items()),
        *(
            f"the recipe has {name} = {its!r}; the run keeps {ours!r}, which it began with, unless `{name}` is given"
            for name, (its, ours) in ignored.items()
        ),
    ]


def _recorded(recipe: Recipe, before: CheckpointInfo) -> dict[str, Any]:
    """Return all settings of the run, by dotted name.

    A run of an earlier version recorded only the settings that decide the result; the others are those of the recipe.
    """
    if before.settings:
        return before.settings
    decides = recipe.identity_settings()
    free = {name: value for name, value in recipe.all_settings().items() if name not in decides}
    return {**free, **{name: value for name, value in before.determining.items() if name != "precision"}}
