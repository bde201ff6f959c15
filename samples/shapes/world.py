"""The rules of the world: its attributes, its causes, what follows from a scene, and which combinations are held out.

Tested in tests/samples/shapes/test_world.py.
"""

from __future__ import annotations

from collections.abc import Mapping
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

_SIDE = 0.23
PLACES = {
    "top left": (-_SIDE, -_SIDE),
    "top right": (_SIDE, -_SIDE),
    "bottom left": (-_SIDE, _SIDE),
    "bottom right": (_SIDE, _SIDE),
}
"""Name → the center of a shape at rest, from the middle of the picture, right and down, in heights of the picture."""

MOTIONS = {"across": (True, False), "vertical": (False, True), "diagonal": (True, True), "still": (False, False)}
"""Name → whether a shape goes to the other side, and whether it goes to the other end, up or down."""

ATTRIBUTES = ("color", "shape", "place", "motion")


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


class Cause(NamedTuple):
    """An event that a scene tells: the motion that follows at the top and at the bottom, and how it is said."""

    at_top: str
    at_bottom: str
    wordings: tuple[str, ...]

    def effect(self, place: str) -> str:
        """Return the motion that follows for a shape at `place`."""
        return self.at_top if place.startswith("top") else self.at_bottom


CAUSES = {
    "push": Cause("across", "across", ("Someone pushes it along the wall.", "A gust of wind hits it from the side.")),
    "cut": Cause("vertical", "still", ("The thread that holds it up is cut.", "The hook above it breaks.")),
    "helium": Cause(
        "still", "vertical", ("It is being filled with helium.", "Its string is untied, for it is a balloon.")
    ),
    "kick": Cause("diagonal", "diagonal", ("Someone kicks it with full force.", "A catapult beside it is released.")),
    "nail": Cause("still", "still", ("A breeze comes, but it is nailed to the wall.", "Someone whispers to it.")),
    "wand": Cause("diagonal", "diagonal", ("A magician points a wand at it.",)),
}
"""Name → what happens to the shape in a scene. `wand` is the cause whose right effect is rare in the dataset."""

RARE = "wand"
INSTEAD = "still"
"""The motion of clips in which the cause RARE has not its right effect."""

_PLACED = {
    name: (f"in the {name} corner", f"at the {name.replace('top', 'upper').replace('bottom', 'lower')}")
    for name in PLACES
}
_OPENINGS = ("A {thing} rests {place}.", "There is a {thing} {place}.", "We see a {thing} {place}.")
_CAPTIONS = ("A {thing} {place} {moves}.", "Something {moves}: a {thing} {place}.", "Seen {place}, a {thing} {moves}.")


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
    moves = _moves(combination)[rest % 2]
    return _CAPTIONS[template].format(thing=_thing(combination), place=_PLACED[combination.place][place], moves=moves)


def _moves(combination: Combination) -> tuple[str, str]:
    """Return two ways to say the motion, whose direction follows from the place."""
    side = "right" if combination.place.endswith("left") else "left"
    goes = "rolls" if combination.shape == "ball" else "slides"
    return {
        "across": (f"{goes} to the {side}", f"{goes} across"),
        "vertical": ("falls", "drops down") if combination.place.startswith("top") else ("rises", "floats up"),
        "diagonal": ("flies to the opposite corner", "flies off diagonally"),
        "still": ("stays where it is", "does not move"),
    }[combination.motion]


def causes_of(combination: Combination) -> list[str]:
    """Return the names of the causes, without RARE, by which the combination may come about."""
    effects = {name: cause.effect(combination.place) for name, cause in CAUSES.items() if name != RARE}
    return [name for name, effect in effects.items() if effect == combination.motion]


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
    place = _only("place", caption, _PLACED)
    moves = {motion: _moves(Combination(color, shape, place, motion)) for motion in MOTIONS}
    return Combination(color, shape, place, _only("motion", caption, moves))


def _thing(combination: Combination) -> str:
    return f"{combination.color} {combination.shape}"


def _only(what: str, text: str, wordings: Mapping[str, tuple[str, ...]]) -> str:
    """Return the one name of which a wording is in the text."""
    found = [name for name, said in wordings.items() if any(one in text for one in said)]
    if len(found) != 1:
        raise ValueError(f"{text!r} names {len(found)} of the {what}s of this world; one is needed")
    return found[0]
