"""Settings as frozen dataclasses: filled from their defaults, then a TOML file, then values by dotted name.

A nested dataclass is a table: `min_width` of `rules` is the setting `rules.min_width`.
"""

from __future__ import annotations

import difflib
import logging
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from nextscene.common.errors import UsageError

T = TypeVar("T")
_HELP, _CHOICES = "help", "choices"
_FORM = r"write a setting as unit_size = 32, texts in quotes, with \\ for \ in them"
_log = logging.getLogger(__name__)


class SettingsError(UsageError, ValueError):
    """An unknown name or a value of the wrong kind; the message names it and the nearest known name."""


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted name, its type, its default, and the sentence that explains it ("" if it has none).

    `choices` are all values that it may have; empty if only the type limits them.
    """

    name: str
    type: Any
    default: Any
    help: str = ""
    choices: tuple[Any, ...] = ()

    @property
    def is_list(self) -> bool:
        return _element_type(self.type) is not None


def setting(default: T, sentence: str, choices: Collection[T] = ()) -> T:
    """Declare a field of a settings class: its default, and the sentence that explains it to users.

    `choices` may be a registry: what is registered later counts.
    """
    return field(default=default, metadata={_HELP: sentence, _CHOICES: choices})


def leaves(cls: type[Any], prefix: str = "") -> Iterator[Setting]:
    """Yield all settings of a settings class and of those nested in it, in order."""
    hints = get_type_hints(cls)
    defaults = cls()
    for item in fields(cls):
        kind, name = hints[item.name], f"{prefix}{item.name}"
        if is_dataclass(kind):
            yield from leaves(cast(type[Any], kind), f"{name}.")
        else:
            choices = get_args(kind) if get_origin(kind) is Literal else tuple(item.metadata.get(_CHOICES, ()))
            yield Setting(name, kind, getattr(defaults, item.name), item.metadata.get(_HELP, ""), choices)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return dotted name → value of each setting of a settings object and of those nested in it."""
    named: dict[str, Any] = {}
    for item in fields(value):
        inner = getattr(value, item.name)
        if is_dataclass(inner):
            named |= flat(inner, f"{prefix}{item.name}.")
        else:
            named[f"{prefix}{item.name}"] = inner
    return named


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted name → value of each entry of nested tables."""
    named: dict[str, Any] = {}
    for name, value in tree.items():
        named |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return named


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return name → (value before, value now) where two configurations differ; None for a value that is missing."""
    pairs = {name: (before.get(name), now.get(name)) for name in sorted(before.keys() | now.keys())}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def renamed_settings(cls: type[Any]) -> dict[str, str]:
    """Return dotted name of an earlier version → dotted name of today.

    A settings class lists renames of its own settings and tables, old → new, in `RENAMED: ClassVar[Mapping[str, str]]`.
    """
    hints = get_type_hints(cls)
    names = {one.name: one.name for one in leaves(cls)}
    for item in fields(cls):
        if is_dataclass(hints[item.name]):
            inner = renamed_settings(cast(type[Any], hints[item.name]))
            names |= {f"{item.name}.{old}": f"{item.name}.{new}" for old, new in inner.items()}
    for old, new in getattr(cls, "RENAMED", {}).items():
        names |= {f"{old}{n[len(new) :]}": now for n, now in names.items() if n == new or n.startswith(f"{new}.")}
    return {old: now for old, now in names.items() if old != now}


def from_names(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Return the settings with `values` by dotted name, the others at their defaults.

    Raise SettingsError. Warn of names of an earlier version, which still work. `where` begins every message; if it is
    "", a message names a setting as an argument.
    """
    values = _with_names_of_today(cls, values, where)
    known = {one.name: one for one in leaves(cls)}
    for name, value in values.items():
        if name not in known:
            raise SettingsError(_at(where, _unknown(name, value, known), known))
        if not _fits(value, known[name]):
            raise SettingsError(_at(where, f"{name} = {value!r} should be {_in_words(known[name])}", known))
    return _build(cls, values, "", where)


def from_tree(cls: type[T], tree: Mapping[str, Any], where: str) -> T:
    """Return the settings from nested tables. Raise SettingsError."""
    return from_names(cls, flatten(tree), where)


def load(cls: type[T], file: Path | None, given: Mapping[str, Any], recorded: Mapping[str, Any] | None = None) -> T:
    """Return the settings `given`, else those of a TOML file, else those `recorded`, all by dotted name.

    Raise SettingsError, which names a setting that was given as an argument: `unit_size`.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values = _with_names_of_today(cls, _read(file), str(file))
        from_names(cls, values, str(file))
    return from_names(cls, {**(recorded or {}), **values, **given}, "")


def _read(file: Path) -> dict[str, Any]:
    try:
        return flatten(tomllib.loads(file.read_text(encoding="utf-8-sig")))
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: no text in UTF-8; save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file}: no TOML: {error}; {_FORM}") from error


def _with_names_of_today(cls: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    renamed = renamed_settings(cls)
    named: dict[str, Any] = {}
    for name, value in values.items():
        now = renamed.get(name, name)
        if now != name:
            if now in values or now in named:
                raise SettingsError(f"{where}: {name} is the old name of {now}, which is there too; leave {name} out")
            _log.warning("%s: %s is now called %s; the old name works until the next release", where, name, now)
        named[now] = value
    return named


def _unknown(name: str, value: Any, known: Mapping[str, Setting]) -> str:
    if inner := next((other for other in known if other.startswith(f"{name}.")), None):
        return f"{name} = {value!r} should be a table, [{name}], with {inner} and others"
    if (table := known.get(name.partition(".")[0])) and table.is_list:
        return f"{table.name} should be {_in_words(table)}, as [[{table.name}]]"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"no setting {name!r}" + (f"; is {near[0]!r} meant?" if near else "")


def _build(cls: type[T], values: Mapping[str, Any], prefix: str, where: str) -> T:
    hints = get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for item in fields(cls):  # type: ignore[arg-type]
        name = f"{prefix}{item.name}"
        if is_dataclass(hints[item.name]):
            arguments[item.name] = _build(cast(type[Any], hints[item.name]), values, f"{name}.", where)
        elif name in values:
            arguments[item.name] = _convert(values[name], hints[item.name], f"{where}: {name}")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise SettingsError(_at(where, str(error), {one.name for one in leaves(cls, prefix)})) from error


def _at(where: str, text: str, known: Collection[str]) -> str:
    """Return the message that `where` begins; if it is "", with the first of the `known` names in backquotes."""
    name, space, rest = text.partition(" ")
    return f"{where}: {text}" if where else f"`{name}`{space}{rest}" if name in known else text


def _convert(value: Any, kind: Any, where: str) -> Any:
    element = _element_type(kind)
    if element is None:
        return float(value) if kind is float else value
    return tuple(from_tree(element, item, where) if isinstance(item, Mapping) else item for item in value)


def _element_type(kind: Any) -> Any:
    """Return the type of a list's elements, None if the type is not a list."""
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def _fits(value: Any, one: Setting) -> bool:
    kind = one.type
    if element := _element_type(kind):
        inner = Mapping if is_dataclass(element) else element
        return isinstance(value, (list, tuple)) and all(isinstance(item, inner) for item in value)
    if one.choices:
        return value in one.choices
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


def _in_words(one: Setting) -> str:
    if element := _element_type(one.type):
        return "a list of " + ("tables" if is_dataclass(element) else "texts")
    if one.choices:
        return "one of " + ", ".join(map(str, one.choices))
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[one.type]
