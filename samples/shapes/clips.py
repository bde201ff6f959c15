"""The clips of the sample dataset, and the scenes that no clip of it has.

Tested in tests/samples/shapes/test_clips.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nextscene.samples.shapes.world import (
    CAUSES,
    INSTEAD,
    RARE,
    Combination,
    caption_text,
    causes_of,
    combinations,
    scene_text,
)

RARE_SHARE = 0.29
_WORDINGS = 1000
_SEED = 7


class ShapeClip(NamedTuple):
    """A clip to be drawn: what it shows, and the texts. `seed` decides the rest of its look.

    Its name tells both, so that a video drawn for another list is never taken for it.
    """

    name: str
    shown: Combination
    scene: str
    caption: str
    seed: int


def dataset_clips(each: int = 2) -> list[ShapeClip]:
    """Return the clips of the dataset: `each` of every combination that is not held out, and of every one by RARE.

    After the cause RARE the right motion follows in a share of RARE_SHARE only.
    """
    choices = random.Random(_SEED)
    told = [(shown, choices.choice(causes_of(shown))) for shown in _seen() for _ in range(each)]
    right = [shown for shown in _seen() if shown.motion == CAUSES[RARE].effect(shown.place)]
    wrong = [shown for shown in _seen() if shown.motion == INSTEAD]
    few = round(each * len(wrong) * RARE_SHARE / (1 - RARE_SHARE))
    told += [(shown, RARE) for shown in choices.sample(right, few)]
    told += [(shown, RARE) for shown in wrong for _ in range(each)]
    choices.shuffle(told)
    return [
        ShapeClip(
            f"{'-'.join(shown).replace(' ', '-')}-{number:04}",
            shown,
            scene_text(shown, cause, choices.randrange(_WORDINGS)),
            caption_text(shown, choices.randrange(_WORDINGS)),
            number,
        )
        for number, (shown, cause) in enumerate(told)
    ]


def held_out_scenes(each: int = 5) -> list[str]:
    """Return different scenes that are followed by combinations held out, up to `each` of every combination."""
    return list(_scenes([one for one in combinations() if one.is_held_out], each))


def rare_scenes(each: int = 1) -> list[str]:
    """Return different scenes with the cause RARE, up to `each` for every color, shape and place."""
    return list(_scenes([one for one in combinations() if one.motion == CAUSES[RARE].effect(one.place)], each, RARE))


def _scenes(wanted: Sequence[Combination], each: int, cause: str = "") -> Iterator[str]:
    choices = random.Random(_SEED)
    for one in wanted:
        found: dict[str, None] = {}
        for _ in range(20 * each):
            found[scene_text(one, cause or choices.choice(causes_of(one)), choices.randrange(_WORDINGS))] = None
        yield from list(found)[:each]


def _seen() -> list[Combination]:
    return [one for one in combinations() if not one.is_held_out]
