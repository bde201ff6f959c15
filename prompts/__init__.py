"""The prompt templates, as text files beside this module: loaded by name, their fields checked, their text hashed.

The first three are the words of the paper (arXiv 2512.13015, supplement, sections 10 and 11.1), with line wraps removed
and nothing else changed. `docs/reproduction.md` says how each is sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

if __name__ != "nextscene.prompts":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.prompts")

# The paper marks the inputs of its templates in two ways: {name}, and a bracketed description of what goes there.
_MARKERS: Mapping[str, Mapping[str, str]] = {
    "preceding_description": {"caption": "[Current visual scene or activity]"},
    "verification": {},
    "causal_consistency": {"scene_description": "{scene_description}", "caption": "{caption}"},
    "next_scene": {"scene_description": "{scene_description}"},
    "text_to_video": {"caption": "{caption}"},
    "caption": {},
    "retry": {"rejected_scenes": "{turned_down}"},
    "notice": {},
}

NAMES = tuple(_MARKERS)


class PromptError(ValueError):
    """An unknown template, a template file whose markers are not as declared, or values that do not fit it."""


@dataclass(frozen=True)
class Prompt:
    """A template. `sha256` is that of `text` in UTF-8, and is part of every record made with it."""

    name: str
    text: str
    markers: Mapping[str, str]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, **values: str) -> str:
        """Return the text with each marker replaced by its value, in one pass: values are never searched for markers.

        Raise PromptError if the names given are not exactly the fields of the template.
        """
        if values.keys() != self.markers.keys():
            raise PromptError(
                f"prompt {self.name!r} takes {sorted(self.markers) or 'no fields'}, got {sorted(values) or 'none'}"
            )
        if not values:
            return self.text
        field_of = {marker: field for field, marker in self.markers.items()}
        pattern = "|".join(map(re.escape, field_of))
        return re.sub(pattern, lambda found: values[field_of[found.group()]], self.text)


@cache
def load(name: str) -> Prompt:
    """Return the template of a name, without the last newline of its file. Raise PromptError if it does not exist."""
    if name not in _MARKERS:
        raise PromptError(f"no prompt {name!r}; there are {', '.join(NAMES)}")
    text = resources.files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")
    for field, marker in _MARKERS[name].items():
        if text.count(marker) != 1:
            raise PromptError(f"prompt {name!r} must contain {marker!r} once, for its field {field!r}")
    return Prompt(name, text, _MARKERS[name])
