"""The rules of the world: its attributes, its causes, what follows from a scene, and which combinations are held out.

Tested in tests/samples/shapes/test_world.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

COLORS = {
    "red": (214, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 90, 230),
    "yellow": (235, 205, 40),
    "purple": (160, 50, 190),
}
"""Name → RGB."""

SHAPES = ("ball", "plank", "post")

PLACES = {"left": (-0.34, 0.0), "right": (0.34, 0.0), "top": (0.0, -0.14), "bottom": (0.0, 0.14)}
"""Name → the center of a shape at rest, from the middle of the picture, right and down, in heights of the picture."""

MOTIONS = {"right": (0.24, 0.0), "left": (-0.24, 0.0), "up": (0.0, -0.16), "down": (0.0, 0.16)}
"""Name → the way from the first to the last frame, right and down, in heights of the picture."""

ATTRIBUTES = ("color", "shape", "place", "motion")

_ACROSS = {"left": "right", "right": "left", "top": "down", "bottom": "up"}


class Combination(NamedTuple):
    """A value of each attribute."""

    color: str
    shape: str
    place: str
    motion: str

    @property
    def is_held_out(self) -> bool:
        """True for a fifth of the combinations: for each shape, place and motion that of one color.

        No clip of the dataset has one of them, but each value, and each two values together, are in some clip.
        """
        places = (list(COLORS), SHAPES, list(PLACES), list(MOTIONS))
        return sum(named.index(value) for named, value in zip(places, self, strict=True)) % len(COLORS) == 0


def combinations() -> list[Combination]:
    """Return all combinations, in a fixed order."""
    return [Combination(*values) for values in product(COLORS, SHAPES, PLACES, MOTIONS)]


@dataclass(frozen=True)
class Cause:
    """What happens to the shape in a scene. `motion` is what follows, "" if that depends on the place of the shape.

    `wordings` are sentences that say it.
    """

    motion: str
    wordings: tuple[str, ...]

    def effect(self, place: str) -> str:
        """Return the motion that follows for a shape at `place`."""
        return self.motion or _ACROSS[place]


CAUSES = {
    "push": Cause("", ("Someone pushes it away from the edge.", "A spring between it and the edge is released.")),
    "from the left": Cause("right", ("A gust of wind comes from the left.", "A mallet swings at it from the left.")),
    "from the right": Cause("left", ("A gust of wind comes from the right.", "A mallet swings at it from the right.")),
    "lift": Cause("up", ("It is full of helium, and its string is untied.", "A geyser is about to burst under it.")),
    "loss": Cause("down", ("The thread that it hangs on is cut.", "The shelf that holds it breaks.")),
    "wand": Cause("up", ("A magician points a wand at it.",)),
}
"""Name → what happens to the shape in a scene. `wand` is the cause whose right effect can be made rare in a dataset."""

RARE = "wand"
INSTEAD = "down"
"""The motion of clips in which the cause RARE has not its right effect."""

_PLACED = {
    "left": ("at the left edge", "on the left side"),
    "right": ("at the right edge", "on the right side"),
    "top": ("near the top", "in the upper part"),
    "bottom": ("near the bottom", "in the lower part"),
}
_OPENINGS = ("A {thing} rests {place}.", "There is a {thing} {place}.", "We see a {thing} {place}.")
_CAPTIONS = ("A {thing} {place} {moves}.", "The clip shows a {thing} {place} that {moves}.")
_MOVES = {
    "right": ("{goes} to the right", "{goes} rightward"),
    "left": ("{goes} to the left", "{goes} leftward"),
    "up": ("rises", "floats up"),
    "down": ("falls", "drops down"),
}
_GOES = {"ball": "rolls", "plank": "slides", "post": "slides"}


def scene_text(combination: Combination, cause: str, choice: int) -> str:
    """Return a scene after which the combination follows by the named cause. `choice` selects one of the wordings."""
    rest, opening = divmod(choice, len(_OPENINGS))
    rest, place = divmod(rest, 2)
    wordings = CAUSES[cause].wordings
    begin = _OPENINGS[opening].format(thing=_thing(combination), place=_PLACED[combination.place][place])
    return f"{begin} {wordings[rest % len(wordings)]}"


def caption_text(combination: Combination, choice: int) -> str:
    """Return a caption of a clip of the combination. `choice` selects one of the wordings."""
    rest, template = divmod(choice, len(_CAPTIONS))
    rest, place = divmod(rest, 2)
    moves = _MOVES[combination.motion][rest % 2].format(goes=_GOES[combination.shape])
    return _CAPTIONS[template].format(thing=_thing(combination), place=_PLACED[combination.place][place], moves=moves)


def causes_of(combination: Combination) -> list[str]:
    """Return the names of the causes, without RARE, by which the combination may come about."""
    return [
        name for name, cause in CAUSES.items() if name != RARE and cause.effect(combination.place) == combination.motion
    ]


def cause_in(scene: str) -> str:
    """Return the name of the cause that a scene tells. Raise ValueError if it tells none, or several."""
    return _only("cause", scene, {name: cause.wordings for name, cause in CAUSES.items()})


def what_follows(scene: str) -> Combination:
    """Return what follows from a scene. Raise ValueError for a text that is not a scene of this world."""
    color = _only("color", scene, {name: (f" {name} ",) for name in COLORS})
    shape = _only("shape", scene, {name: (f" {name} ",) for name in SHAPES})
    place = _only("place", scene, _PLACED)
    return Combination(color, shape, place, CAUSES[cause_in(scene)].effect(place))


def what_is_shown(caption: str) -> Combination:
    """Return what a caption says. Raise ValueError for a text that is not a caption of this world."""
    color = _only("color", caption, {name: (f" {name} ",) for name in COLORS})
    shape = _only("shape", caption, {name: (f" {name} ",) for name in SHAPES})
    moves = {name: tuple(way.format(goes=_GOES[shape]) for way in ways) for name, ways in _MOVES.items()}
    return Combination(color, shape, _only("place", caption, _PLACED), _only("motion", caption, moves))


def _thing(combination: Combination) -> str:
    return f"{combination.color} {combination.shape}"


def _only(what: str, text: str, wordings: Mapping[str, tuple[str, ...]]) -> str:
    """Return the one name of which a wording is in the text."""
    found = [name for name, said in wordings.items() if any(one in text for one in said)]
    if len(found) != 1:
        raise ValueError(f"{text!r} names {len(found)} of the {what}s of this world; one is needed")
    return found[0]
