"""Settings as flags of a command: one for each setting, named by its dotted name."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from nextscene.common.config_loader import Setting, SettingsError, leaves, load

NoBound = Literal["none"]
NO_BOUND: NoBound = "none"
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def options(cls: type[Any], default: str = "", without: Container[str] = ()) -> Callable[[F], F]:
    """Add a flag for each setting: `min_width` of `rules` becomes `--rules.min-width`. None means: not given.

    Lists have none, nor have those named in `without`. `default` is what the help calls defaults, if not the class's.
    """

    def decorate(command: F) -> F:
        shown = [one for one in leaves(cls) if one.name not in without and not one.is_list]
        for one in reversed(shown):
            command = click.option(
                f"--{one.name.replace('_', '-')}",
                _parameter(one.name),
                type=click.Choice(one.choices) if one.choices else one.type,
                help=_help(one, default),
            )(command)
        return command

    return decorate


def _help(one: Setting, default: str) -> str:
    return f"{one.help}  [default: {default or one.default}]".strip()


def chosen(cls: type[T], file: Path | None, flags: Mapping[str, Any], begun_with: Mapping[str, Any] | None = None) -> T:
    """The settings from click's parameters, else an optional TOML file, else `begun_with`, by dotted name.

    Raises SettingsError.
    """
    given = {one.name: flags.get(_parameter(one.name)) for one in leaves(cls)}
    return load(cls, file, {name: value for name, value in given.items() if value is not None}, begun_with)


class Finite(click.FloatRange):
    """A number in a range, which click takes NaN and infinity to be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number to reckon with", param, ctx)
        return number


class BudgetAmount(click.FloatRange):
    """An amount of US dollars above 0, exactly as it was written, or `none`, which is no bound."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).strip().lower() == NO_BOUND:
            return NO_BOUND
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no amount of money; {NO_BOUND} is no bound", param, ctx)
        return Decimal(str(number))


def dollars(flag: str, value: float | None) -> Decimal | None:
    """Exactly what was written. Raises SettingsError for what is no amount of money."""
    if value is not None and not math.isfinite(value):
        raise SettingsError(f"{flag} {value}: no amount of money; leave it out to have no bound")
    return None if value is None else Decimal(str(value))


def _parameter(name: str) -> str:
    return name.replace(".", "__")
