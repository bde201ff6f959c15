"""Settings: a frozen dataclass, filled from its defaults, then a TOML file, then flags named by dotted path."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from nextscene.common.errors import UsageError

NoBound = Literal["none"]
NO_BOUND: NoBound = "none"
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_FORM = r"write a setting as unit_size = 32, texts in quotes, with \\ for \ in them"


class SettingsError(UsageError, ValueError):
    """An unknown name or a value of the wrong kind; the message names it and the nearest known name."""


@dataclass(frozen=True)
class Leaf:
    """One setting: its dotted name, its type and its default."""

    name: str
    type: Any
    default: Any


def leaves(cls: type[Any], prefix: str = "") -> Iterator[Leaf]:
    """All settings of a dataclass of dataclasses, in order."""
    hints = get_type_hints(cls)
    defaults = cls()
    for field in fields(cls):
        kind = hints[field.name]
        if is_dataclass(kind):
            yield from leaves(kind, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield Leaf(f"{prefix}{field.name}", kind, getattr(defaults, field.name))


def from_names(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """The settings with `values` by dotted name, the rest at their defaults. Raises SettingsError."""
    known = {leaf.name: leaf for leaf in leaves(cls)}
    for name, value in values.items():
        if name not in known:
            if inner := next((leaf for leaf in known if leaf.startswith(f"{name}.")), None):
                raise SettingsError(f"{where}: {name} = {value!r} should be a table, [{name}], with {inner} and others")
            if (list_of := known.get(name.partition(".")[0])) and _of_list(list_of.type):
                raise SettingsError(f"{where}: {list_of.name} should be {_kind(list_of.type)}, as [[{list_of.name}]]")
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            raise SettingsError(f"{where}: no setting {name!r}" + (f"; is {near[0]!r} meant?" if near else ""))
        if not _fits(value, known[name].type):
            raise SettingsError(f"{where}: {name} = {value!r} should be {_kind(known[name].type)}")
    return _build(cls, values, "", where)


def from_tree(cls: type[T], tree: Mapping[str, Any], where: str) -> T:
    """The settings from nested tables. Raises SettingsError."""
    return from_names(cls, dict(_flatten(tree, "")), where)


def options(cls: type[Any], default: str = "", without: Container[str] = ()) -> Callable[[F], F]:
    """Adds a flag for each setting: `min_width` of `rules` becomes `--rules.min-width`. None means: not given.

    Lists have none, nor have those named in `without`. `default` is what the help calls defaults, if not the class's.
    """

    def decorate(command: F) -> F:
        for leaf in reversed([leaf for leaf in leaves(cls) if leaf.name not in without and not _of_list(leaf.type)]):
            choice = get_args(leaf.type) if get_origin(leaf.type) is Literal else None
            command = click.option(
                f"--{leaf.name.replace('_', '-')}",
                _parameter(leaf.name),
                type=click.Choice(choice) if choice else leaf.type,
                help=f"[default: {default or leaf.default}]",
            )(command)
        return command

    return decorate


def chosen(cls: type[T], file: Path | None, flags: Mapping[str, Any], begun_with: Mapping[str, Any] | None = None) -> T:
    """The settings from click's parameters, else an optional TOML file, else `begun_with`, by dotted name.

    Raises SettingsError.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values |= _flatten(tomllib.loads(file.read_text(encoding="utf-8-sig")), "")
        except UnicodeDecodeError as error:
            raise SettingsError(f"{file}: no text in UTF-8; save it as UTF-8") from error
        except (OSError, ValueError) as error:
            raise SettingsError(f"{file}: no TOML: {error}; {_FORM}") from error
    from_names(cls, values, str(file))
    given = {leaf.name: flags.get(_parameter(leaf.name)) for leaf in leaves(cls)}
    values |= {name: value for name, value in given.items() if value is not None}
    return from_names(cls, {**(begun_with or {}), **values}, "settings")


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


def _flatten(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _build(cls: type[T], values: Mapping[str, Any], prefix: str, where: str) -> T:
    hints = get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        name = f"{prefix}{field.name}"
        if is_dataclass(hints[field.name]):
            arguments[field.name] = _build(hints[field.name], values, f"{name}.", where)
        elif name in values:
            arguments[field.name] = _made(values[name], hints[field.name], f"{where}: {name}")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error


def _made(value: Any, kind: Any, where: str) -> Any:
    element = _of_list(kind)
    if element is None:
        return float(value) if kind is float else value
    return tuple(from_tree(element, item, where) if isinstance(item, Mapping) else item for item in value)


def _of_list(kind: Any) -> Any:
    """What a list of settings holds; None for what is no list."""
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def _fits(value: Any, kind: Any) -> bool:
    if element := _of_list(kind):
        inner = Mapping if is_dataclass(element) else element
        return isinstance(value, (list, tuple)) and all(isinstance(item, inner) for item in value)
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


def _kind(kind: Any) -> str:
    if element := _of_list(kind):
        return "a list of " + ("tables" if is_dataclass(element) else "texts")
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[kind]
