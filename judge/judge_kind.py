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
    """One sentence, without its period, that says how scenes are made, for summary, page and dataset card."""
    open: Callable[..., Judge | None]
    """Make the judge from its settings; for a kind that pays, also from the price and the client. None: no scenes."""
    settings: str = ""
    """The table of the configuration that decides its answers; "" if there is none."""
    prompts: Callable[[Any], Sequence[str]] = _no_prompts
    """Return the names of the prompts that it uses under its settings: they decide the dataset too."""
    heading: str = "How the scenes were made."
    """The words before `method` on the page."""
    pays: bool = False
    """True if it asks an API within a budget, and stores each answer. Its settings are then those of `claude`."""
    can_caption: bool = False
    """True if it can caption clips, from as many frames as `claude.frames`, of the height `claude.frame_height`."""
    is_language_model: bool = False
    """True if a language model writes texts of the dataset. The dataset card says so."""
    reads_preceding: bool = False
    """True if it needs the caption of the preceding clip of the same video, so a source must be in time order."""
    reads_scenes: bool = False
    """True if it takes the scenes of the source: the column `scene`, which is provenance under all other judges."""
    writes_scenes: bool = True
    """True if the conditioning text of a clip is a scene, and not its caption."""
    has_one_round: bool = False
    """True if it describes each clip only once, whatever the settings."""
