"""The description of one kind of judge: all that other rooms need to know of it, in one place.

Tested in tests/judge/test_registry.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nextscene.judge.base import Judge


def _no_prompts(settings: Any) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class JudgeKind:
    """One kind of judge. A new one is a module that defines it, and a line in `judge/registry.py`."""

    name: str
    """The value of the setting `judge`."""
    method: str
    """How scenes are made, as one sentence without its full stop; summary, page and dataset card tell it."""
    open: Callable[..., Judge | None]
    """Make the judge from its settings; for a kind that pays, also from the price and the client. None: no scenes."""
    settings: str = ""
    """The table of the configuration that decides its answers; "" if there is none."""
    prompts: Callable[[Any], Sequence[str]] = _no_prompts
    """Return the names of the prompts that it uses under its settings: they decide the dataset too."""
    heading: str = "How the scenes were made."
    """The words before `method` on the page."""
    pays: bool = False
    """Ask an API within a budget, and store each answer. The settings of such a kind are those of `claude`."""
    can_caption: bool = False
    """Caption clips that have no caption. The number and size of the frames are `claude.frames` and `frame_height`."""
    is_language_model: bool = False
    """Texts of the dataset are written by a language model, which its card tells."""
    reads_preceding: bool = False
    """Needs the caption of the clip before in the same video, so that a source must be in time order."""
    writes_scenes: bool = True
    """The conditioning text of a clip is a scene, and not its caption."""
    has_one_round: bool = False
    """Describes each clip once, whatever the settings."""
