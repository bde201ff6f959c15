"""Paths into a row: a column, then keys of objects and places in lists.

`caption`, `metadata.fps`, `cap[0]`, `windows[].caption` (of each element), and in backquotes a name with other letters:
`` `aesthetic score` ``. A list may also be the text of one, as tables in CSV have it.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nextscene.common.text import MAX_TEXT_BYTES
from nextscene.curation.sources.cell_values import WrongType, abbreviated, is_absent

_STEP = re.compile(r"`([^`]+)`|([^\W\d][\w-]*)|\[(\d*)\]")
_ALL = slice(None)

Step = str | int | slice
"""A key of an object, a place in a list, or all elements of a list."""


@dataclass(frozen=True)
class RowPath:
    """A path, parsed. `column` is the column that it begins with."""

    text: str
    steps: tuple[Step, ...]

    @staticmethod
    def parse(text: str) -> RowPath:
        """Raise ValueError for a text that is not a path."""
        steps: list[Step] = []
        at = 0
        while at < len(text):
            if text[at] == "." and steps:
                at += 1
                if text[at : at + 1] == "[":
                    break
            elif steps and text[at] != "[":
                break
            found = _STEP.match(text, at)
            if found is None or (found[3] is not None and not steps):
                break
            quoted, name, place = found.groups()
            steps.append(quoted or name or (int(place) if place else _ALL))
            at = found.end()
        if at < len(text) or not steps or text.endswith("."):
            raise ValueError(
                f"{text!r} is not a path into a row, such as caption, metadata.fps, cap[0], windows[].caption, or"
                " `aesthetic score` in backquotes"
            )
        return RowPath(text, tuple(steps))

    @property
    def column(self) -> str:
        return str(self.steps[0])

    def of(self, row: Mapping[str, Any]) -> Any:
        """Return the value in `row`; None if there is none. Raise WrongType for a step that the value does not have."""
        return _follow(row, self.steps)


def _follow(value: Any, steps: Sequence[Step]) -> Any:
    for number, step in enumerate(steps):
        if is_absent(value) or (value == "" and number):
            return None
        if isinstance(step, str):
            if not isinstance(value, Mapping):
                raise WrongType(f"has no {step!r}: it is {abbreviated(value)}")
            value = value.get(step)
            continue
        elements = list_of(value)
        if isinstance(step, slice):
            return [_follow(element, steps[number + 1 :]) for element in elements]
        value = elements[step] if step < len(elements) else None
    return None if is_absent(value) else value


def list_of(value: Any) -> Sequence[Any]:
    """Return a list, or the list that a text gives in JSON or as Python writes it. Raise WrongType."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, str) and value.strip().startswith("[") and len(value) <= MAX_TEXT_BYTES:
        for read in (json.loads, ast.literal_eval):
            try:
                with warnings.catch_warnings(action="ignore", category=SyntaxWarning):  # of a backslash in a text
                    found = read(value.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(found, list):
                return found
    raise WrongType(f"is {abbreviated(value)}, not a list")
