"""Check of the names of the given datasets against a recipe's mix.

Tested in tests/pipelines/test_train.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from nextscene.common.errors import UsageError
from nextscene.training.recipe import Recipe


def check_names(recipe: Recipe, given: Iterable[str]) -> None:
    """Raise UsageError for a name of the recipe's mix that is not given, or a given name that the mix does not have."""
    names, given = [mix.name for mix in recipe.mix], list(given)
    for name in names:
        if name not in given:
            raise UsageError(f"the mix of {recipe.name} has a dataset {name!r}; give it with `data` {name}=OUT")
    for name in given:
        if name not in names:
            raise UsageError(f"`data` {name}=…: the mix of {recipe.name} has only {', '.join(names)}")
