"""Captions and scenes from a source: cleaned, or with the reason why the clip must fail."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

from nextscene.common.text import MAX_TEXT_BYTES
from nextscene.curation.outcome import NOT_LISTED, ClipOutcome
from nextscene.curation.sources.lfs_pointer import IS_LFS_POINTER, is_lfs_pointer

BYTE_ORDER_MARK = "\ufeff"

_STRIPPED = BYTE_ORDER_MARK + "".join(filter(str.isspace, map(chr, range(0x3001))))
# Characters that show nothing, with or without width, though Unicode counts them as letters, marks or symbols.
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | frozenset(
    map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
)
_INVISIBLE = frozenset(["Cc", "Cf", "Zl", "Zp", "Zs"])
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


LinesRule = Literal["keep", "first", "join"]
"""The rule for a caption of several lines: keep all of it, its first line with text, or its lines joined by spaces."""

Meaning = Literal["caption", "scene"]
"""The meaning of a text: it says what its clip shows, or what happened before the clip."""

SCENE_FLAWS = frozenset(["bad_scene", "scene_too_long"])

ABSENT, DUPLICATE = "absent", "duplicate_row"
"""Flaws of clips whose file is not there, and of those that an earlier row already gave."""
_REJECTED = frozenset(["no_caption", DUPLICATE])


@dataclass(frozen=True, slots=True)
class ClipText:
    """A caption or a scene; "" if there is none. If the text cannot be used, `flaw` is the reason why its clip ends."""

    text: str = ""
    flaw: str = ""
    flaw_detail: str = ""


NO_TEXT = ClipText()


def first_flawed(*texts: ClipText) -> ClipText:
    """Return the first text that cannot be used; NO_TEXT if there is none."""
    return next((text for text in texts if text.flaw), NO_TEXT)


def outcome_of_flaw(flaw: str, detail: str) -> ClipOutcome | None:
    """Return the outcome of a clip that its source alone decides; None for a clip without a flaw."""
    if not flaw:
        return None
    if flaw == ABSENT:
        return ClipOutcome("absent", NOT_LISTED, detail)
    return ClipOutcome("rejected" if flaw in _REJECTED else "failed", flaw, detail)


def read_caption(data: bytes) -> ClipText:
    """Return the caption in a caption file, given the file's bytes."""
    if len(data) <= MAX_TEXT_BYTES and data.startswith(_UTF_16):
        return bad_text("it is UTF-16, not UTF-8")
    if is_lfs_pointer(data):
        return bad_text(IS_LFS_POINTER)
    return clip_text(data.decode("utf-8", "surrogateescape"))


def clip_text(text: str, meaning: Meaning = "caption") -> ClipText:
    """Return a text as a caption or a scene, without the white space and byte order marks around it.

    Bytes that are not UTF-8 appear in `text` as `surrogateescape` decodes them. A text that shows nothing counts as
    none: return NO_TEXT for it.
    """
    if wrong := not_unicode(text):
        return bad_text(wrong, meaning)
    size = len(text.encode())
    if size > MAX_TEXT_BYTES:
        return too_long(size, meaning)
    if "\0" in text:
        return bad_text("it holds a zero byte", meaning)
    text = text.strip(_STRIPPED)
    return ClipText(text) if any(map(_is_visible, text)) else NO_TEXT


def of_lines(caption: str, rule: LinesRule) -> str:
    """Return what a rule makes of a caption."""
    if rule == "keep":
        return caption
    lines = [line for text in caption.splitlines() if (line := clip_text(text).text)]
    return " ".join(lines[:1] if rule == "first" else lines)


def bad_text(what: str, meaning: Meaning = "caption") -> ClipText:
    return ClipText("", f"bad_{meaning}", f"its {meaning} cannot be used: {what}; {REMEDY}")


def too_long(size: int, meaning: Meaning = "caption") -> ClipText:
    most = f"{MAX_TEXT_BYTES:,}"
    return ClipText("", f"{meaning}_too_long", f"its {meaning} has {size:,} bytes, {most} is the most; {REMEDY}")


REMEDY = "mend it and plan anew, into another output folder"


def not_unicode(text: str) -> str:
    """Return why a text cannot be written as UTF-8, as a phrase; "" if it can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"byte 0x{code - 0xDC00:02X} in it is not UTF-8"
        return f"U+{code:04X} in it is half of a two-part character"
    return ""


def _is_visible(letter: str) -> bool:
    return unicodedata.category(letter) not in _INVISIBLE and letter not in _BLANKS
