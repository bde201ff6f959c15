"""Settings as flags of a command: one for each setting, named by its dotted name."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from nextscene.common.config_loader import Setting, SettingsError, leaves, load, renamed_settings
from nextscene.pipelines.cli.command import renamed

NoLimit = Literal["none"]
NO_LIMIT: NoLimit = "none"
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def options(cls: type[Any], without: Container[str] = (), in_recipes: Container[str] = ()) -> Callable[[F], F]:
    """Add a flag for each setting: `min_width` of `rules` becomes `--rules.min-width`. A flag not given is None.

    Lists and the settings in `without` get no flag. The default of the settings in `in_recipes` depends on the recipe;
    their help shows the default for recipes that do not set them. Names of earlier versions still work.
    """

    def decorate(command: F) -> F:
        shown = [one for one in leaves(cls) if one.name not in without and not one.is_list]
        for old, now in renamed_settings(cls).items():
            if now in {one.name for one in shown}:
                command = renamed(_flag(old), _flag(now))(command)
        for one in reversed(shown):
            command = setting_option(one, type=_type(one), is_in_recipes=one.name in in_recipes)(command)
        return command

    return decorate


def setting_option(one: Setting, type: Any, default: str = "", is_in_recipes: bool = False) -> Callable[[F], F]:
    """Return the flag of one setting, which is None if not given.

    `default` is the default that the help shows, that of the field if it is "". `is_in_recipes`: the help calls it the
    recipe default.
    """
    kind = "recipe default" if is_in_recipes else "default"
    help_text = f"{one.help}  [{kind}: {default or in_toml(one.default)}]".strip()
    return click.option(_flag(one.name), _parameter(one.name), type=type, help=help_text)


def in_toml(value: object) -> str:
    """Return a setting's value as text: `true`, `none` for an empty string, and floats in their shortest form."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def chosen(cls: type[T], file: Path | None, flags: Mapping[str, Any], recorded: Mapping[str, Any] | None = None) -> T:
    """Return the settings. Each is taken from click's parameters, else from the TOML file, else from `recorded`.

    `recorded` has values by dotted name. Raise SettingsError if a setting is not known or not valid.
    """
    return load(cls, file, given_settings(cls, flags), recorded)


def given_settings(cls: type[Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted name → value of the settings that have a value in click's parameters."""
    given = {one.name: flags.get(_parameter(one.name)) for one in leaves(cls)}
    return {name: value for name, value in given.items() if value is not None}


class Finite(click.FloatRange):
    """A finite number in a range. The type of click accepts NaN and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class BudgetAmount(click.FloatRange):
    """An amount of US dollars above 0, converted to Decimal as written, or `none` for no limit."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).strip().lower() == NO_LIMIT:
            return NO_LIMIT
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not an amount of money; {NO_LIMIT} means no limit", param, ctx)
        return Decimal(str(number))


def dollars(flag: str, value: float | None) -> Decimal | None:
    """Return the amount as a Decimal of the digits written, or None. Raise SettingsError if it is not finite."""
    if value is not None and not math.isfinite(value):
        raise SettingsError(f"{flag} {value} is not an amount of money; leave it out for no limit")
    return None if value is None else Decimal(str(value))


def _type(one: Setting) -> Any:
    return click.Choice(one.choices) if one.choices else one.type


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parameter(name: str) -> str:
    return name.replace(".", "__")
