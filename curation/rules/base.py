"""A rule of the screen, and the facts that it may use. Tested in tests/curation/rules/test_registry.py."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nextscene.curation.config import BuildConfig
from nextscene.curation.media.probe import Measured
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.plan import PlannedClip
from nextscene.judge.api.request import Frame


@dataclass(frozen=True)
class ClipFacts:
    """The facts that the screen has about a clip: its row of the plan, its headers, and the settings of the build.

    `frames` are given only to rules that need them: up to 8 JPEGs, evenly spread, including the first and the last
    frame.
    """

    clip: PlannedClip
    measured: Measured
    config: BuildConfig
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A rule of the screen. `check` returns why a clip is rejected, or None if it passes.

    A rule `by_default` is part of every build. Any other rule applies if the setting `rules.further` names it. Rules
    with `needs_frames` run after all others, since the clip must be decoded for them.
    """

    name: str
    check: Callable[[ClipFacts], ClipOutcome | None]
    by_default: bool = False
    needs_frames: bool = False


def pixels(frame: Frame) -> NDArray[np.uint8]:
    """Return the pixels of a frame, uint8 [H, W, RGB]."""
    with Image.open(io.BytesIO(frame.jpeg)) as picture:
        return np.asarray(picture.convert("RGB"))
