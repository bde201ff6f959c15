"""The columns of a table of clips, and similar names that were probably meant for them.

Tested in tests/curation/sources/test_sources.py.

An unknown column is kept as provenance. It is a mistake if it was probably meant for a known column that is missing and
ignoring it would change the clips: a clip would be cut from 0, or captioned a second time.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from nextscene.common.errors import UsageError

COLUMNS = ("video", "caption", "start", "end", "id")
SCENE: Literal["scene"] = "scene"
"""A column that is known too where scenes are read; else it is provenance."""

_log = logging.getLogger(__name__)
_MAX_NAME = 40
_MAX_SHOWN = 20

# Names are compared as words in small letters: `startTime (sec)` as "start time sec".
_WORD = re.compile(r"[A-Z]*[a-z]+|[A-Z]+|[0-9]+|[^\W\d_A-Za-z]+")
_BEFORE_A_TIME = "clip|scene|shot|segment|video|time|timestamp|ts|t|frame"
_AFTER_A_TIME = (
    "time|timestamp|ts|t|secs?|seconds?|s|ms|msecs?|millis|milliseconds?|frames?|idx|index|number|pts|point|offset|pos|"
    "position|at|of|in"
)
_JOINED_BEFORE, _JOINED_AFTER = "t|time|clip|scene|shot|frame|video", "t|time|secs?|seconds?|ms|frame|ts|timestamp"
_OF_A_TEXT = "video|clip|scene|shot|image|short|long|dense|detailed|brief|full|raw|en|english|[0-9]+"
_BEFORE_A_CLIP = "preceding|previous|prev|prior|earlier|given"
_SAID = "descriptions?|desc|texts?|txt|captions?|prompts?"
_OF_A_FILE = "video|clip|movie|film|media|image"
_LIKELY_NAMES = {
    "start": re.compile(
        f"(({_BEFORE_A_TIME}) )*(starts?|begins?|beginning|from|onset)( ({_AFTER_A_TIME}))*|"
        f"(start|begin)({_JOINED_AFTER})|({_JOINED_BEFORE})(start|begin)|"
        "in|in ?point|ss|(time ?)?spans?|timestamps|t ?0"
    ),
    "end": re.compile(
        f"t ?1|(({_BEFORE_A_TIME}) )*(ends?|stops?|to|until|till)( ({_AFTER_A_TIME}))*|"
        f"(end|stop)({_JOINED_AFTER})|({_JOINED_BEFORE})(end|stop)|out|out ?point"
    ),
    "caption": re.compile(
        f"(({_OF_A_TEXT}) )*(captions?|texts?|txt|prompts?|descriptions?|desc|sentences?|narrations?)"
        f"( ({_OF_A_TEXT}))*|(video|clip|image|text)captions?"
    ),
    "video": re.compile(
        f"(({_OF_A_FILE})s? )*(paths?|files?|names?|urls?|uris?|locations?|src|ids?|keys?)|({_OF_A_FILE})s?|"
        f"({_OF_A_FILE}|file)(paths?|files?|names?|urls?|ids?)|file (name|path|url)|content ?url"
    ),
    "id": re.compile("id"),
    "scene": re.compile(
        f"(({_BEFORE_A_CLIP}) )?scenes?( ({_SAID}))?( before)?|scene(description|text|caption)s?|"
        f"({_BEFORE_A_CLIP}) ((shot|clip) )?({_SAID})|before"
    ),
}
_ALIKE = 0.9


class Columns:
    """A checker of the columns of each row. It remembers the last valid ones, as rows of JSON lines may differ."""

    def __init__(self) -> None:
        self._sound: Sequence[str] | None = None
        self._hinted = False

    def check(self, names: Sequence[str], where: str) -> None:
        """Raise UsageError if `video` is missing, or a name was probably meant for a known column."""
        if names == self._sound:
            return
        if "video" not in names:
            near = likely_column("video", names)
            hint = f"; is {near!r} meant? Rename it to `video`" if near else ""
            raise UsageError(f"{where}: no column `video` (it has {listed(names) or 'none'}){hint}")
        for known in ("start", "end", "caption"):
            if near := likely_column(known, names):
                unit = or_scene(near) if known == "caption" else _IN_SECONDS
                raise UsageError(
                    f"{where}: column {near!r} is not known, and there is no `{known}`; rename it to `{known}`{unit},"
                    " or drop it"
                )
        if "start" in names and "end" not in names and (length := _duration_column(names)):
            raise UsageError(
                f"{where}: column {length!r} is not known, and `start` has no `end` beside it; write `end`, which is"
                f" `start` plus {length}{_IN_SECONDS}, or drop it"
            )
        near = likely_column("id", names)
        if near and not self._hinted:
            self._hinted = True
            _log.warning("%s: column %r is kept as provenance; what gives clips their ids is called `id`", where, near)
        self._sound = names


class SceneColumn:
    """A checker of the columns of each row where scenes are read, beside `Columns`."""

    def __init__(self) -> None:
        self._sound: list[str] | None = None

    def check(self, names: Iterable[str], where: str) -> None:
        """Raise UsageError if there is no `scene`, and a name was probably meant for it."""
        if (given := list(names)) == self._sound:
            return
        if near := likely_column(SCENE, given):
            raise UsageError(
                f"{where}: {near!r} is not known, and there is no `{SCENE}`; rename it to `{SCENE}`, or drop it"
            )
        self._sound = given


def or_scene(name: str) -> str:
    """Return what to add to the remedy for a name that may be a caption's: it may be a scene's too."""
    return f", or to `{SCENE}` if it says what happened before the clip" if likely_column(SCENE, [name]) else ""


def likely_column(known: str, names: Sequence[str]) -> str | None:
    """Return the first of `names` that was probably meant for `known`; None if there is none or `known` is present."""
    if known in names:
        return None
    others = (name for name in names if name not in COLUMNS and len(name) <= _MAX_NAME)
    return next((name for name in others if _is_likely(_words(name), known)), None)


def _duration_column(names: Sequence[str]) -> str | None:
    """Return the first of `names` that probably gives the length of a clip."""
    return next((name for name in names if _LENGTH.fullmatch(_words(name))), None)


_LENGTH = re.compile(f"(({_BEFORE_A_TIME}) )*(duration|length|dur|len)( ({_AFTER_A_TIME}))*")
_IN_SECONDS = " (in seconds from the beginning of the video: convert what is not)"


def _is_likely(words: str, known: str) -> bool:
    if _LIKELY_NAMES[known].fullmatch(words) or difflib.SequenceMatcher(None, words, known).ratio() >= _ALIKE:
        return True
    swapped = (known[:i] + known[i + 1] + known[i] + known[i + 2 :] for i in range(len(known) - 1))
    return known != "id" and words in swapped


def _words(name: str) -> str:
    return " ".join(_WORD.findall(name)).lower()


def listed(names: Sequence[str]) -> str:
    """Return names of columns for a message, cut short."""
    shown = (name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…" for name in names[:_MAX_SHOWN])
    return ", ".join(shown) + (", …" if len(names) > _MAX_SHOWN else "")
