"""Templates of names: text with values of a row, `{path}`, each changed by filters, `{path|basename|before:_part}`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from nextscene.curation.sources.cell_values import id_of
from nextscene.curation.sources.mapping.row_path import RowPath

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[^{}]+|.", re.DOTALL)

_MAX_WIDTH = 64

Filter = Callable[[str], str]


def _before(mark: str) -> Filter:
    return lambda text: text.partition(mark)[0]


def _without(prefix: str) -> Filter:
    return lambda text: text.removeprefix(prefix)


def _match(pattern: str) -> Filter:
    whole = re.compile(pattern)
    if whole.groups != 1:
        raise ValueError("a pattern needs one group, in round brackets")

    def part(text: str) -> str:
        return found[1] or "" if (found := whole.search(text)) else text

    return part


def _pad(width: str) -> Filter:
    if not (width.isascii() and width.isdigit() and int(width) <= _MAX_WIDTH):
        raise ValueError(f"pad needs a number of letters up to {_MAX_WIDTH}, such as pad:6")
    return lambda text: text.zfill(int(width))


FILTERS: Mapping[str, Callable[[str], Filter]] = {
    "basename": lambda _: lambda text: PurePosixPath(text).name,
    "stem": lambda _: lambda text: PurePosixPath(text).stem,
    "before": _before,
    "without": _without,
    "match": _match,
    "pad": _pad,
}
"""basename and stem of a path; `before:X`, the text before the first X; `without:X`, without X at its beginning;
`match:REGEX`, the part in brackets if the expression matches, else all; `pad:N`, with zeros before it to N letters."""
_WITH_ARGUMENT = frozenset(["before", "without", "match", "pad"])


@dataclass(frozen=True)
class _Field:
    path: RowPath
    filters: tuple[Filter, ...]

    def of(self, row: Mapping[str, Any]) -> str:
        text = id_of(self.path.of(row))
        for change in self.filters:
            text = change(text)
        return text


@dataclass(frozen=True)
class Template:
    """A template, parsed into texts and fields."""

    parts: tuple[str | _Field, ...]

    @staticmethod
    def parse(text: str, name: str) -> Template:
        """Raise ValueError for a text that is not a template; `name` is the setting's."""
        parts: list[str | _Field] = []
        for found in _PART.finditer(text):
            piece = found[0]
            if found[1] is not None:
                parts.append(_field(found[1], name))
            elif piece in ("{", "}"):
                raise ValueError(f"{name}: {text!r} has a single {piece}; write a field as {{column}}, a brace twice")
            else:
                parts.append(piece[0] if piece in ("{{", "}}") else piece)
        return Template(tuple(parts))

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(part.path.column for part in self.parts if not isinstance(part, str))

    def of(self, row: Mapping[str, Any]) -> str:
        """Return the text for a row; "" if a field is absent. Raise WrongType."""
        told = [part if isinstance(part, str) else part.of(row) for part in self.parts]
        absent = any(not text for text, part in zip(told, self.parts, strict=True) if not isinstance(part, str))
        return "" if absent else "".join(told)


def _field(text: str, name: str) -> _Field:
    path, *filters = re.split(r"\|(?=[a-z]+(?:[|:]|$))", text)
    try:
        return _Field(RowPath.parse(path), tuple(map(_filter, filters)))
    except (ValueError, re.error) as error:
        raise ValueError(f"{name}: {{{text}}}: {error}") from error


def _filter(text: str) -> Filter:
    name, colon, argument = text.partition(":")
    if name not in FILTERS or (name in _WITH_ARGUMENT) != bool(colon and argument):
        raise ValueError(f"no filter {text!r}; there are basename, stem, before:TEXT, without:TEXT, match:REGEX, pad:N")
    return FILTERS[name](argument)
