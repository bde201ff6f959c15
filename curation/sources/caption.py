"""Captions from a source: cleaned, or with the reason why the clip must fail."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from nextscene.common.text import MAX_TEXT_BYTES
from nextscene.curation.outcome import ClipOutcome

BYTE_ORDER_MARK = "\ufeff"

_STRIPPED = BYTE_ORDER_MARK + "".join(filter(str.isspace, map(chr, range(0x3001))))
# Characters that show nothing, with or without width, though Unicode counts them as letters, marks or symbols.
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | frozenset(
    map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
)
_INVISIBLE = frozenset(["Cc", "Cf", "Zl", "Zp", "Zs"])
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption; "" if there is none. If the text cannot be a caption, `flaw` is the reason why its clip ends."""

    text: str = ""
    flaw: str = ""
    flaw_detail: str = ""


NO_CAPTION = Caption()


def outcome_of_flaw(flaw: str, detail: str) -> ClipOutcome | None:
    """Return the outcome of a clip that its source alone decides; None for a clip without a flaw."""
    if not flaw:
        return None
    return ClipOutcome("rejected" if flaw == "no_caption" else "failed", flaw, detail)


def read_caption(data: bytes) -> Caption:
    """Return the caption in a caption file, given the file's bytes."""
    if len(data) <= MAX_TEXT_BYTES and data.startswith(_UTF_16):
        return bad_caption("it is UTF-16, not UTF-8")
    return caption_of(data.decode("utf-8", "surrogateescape"))


def caption_of(text: str) -> Caption:
    """Return a text as a caption, without the white space and byte order marks around it.

    Bytes that are not UTF-8 appear in `text` as `surrogateescape` decodes them. A text that shows nothing is not a
    caption: return NO_CAPTION for it.
    """
    if wrong := not_unicode(text):
        return bad_caption(wrong)
    size = len(text.encode())
    if size > MAX_TEXT_BYTES:
        return too_long(size)
    if "\0" in text:
        return bad_caption("it holds a zero byte")
    text = text.strip(_STRIPPED)
    return Caption(text) if any(map(_is_visible, text)) else NO_CAPTION


def bad_caption(what: str) -> Caption:
    return Caption("", "bad_caption", f"its caption cannot be used: {what}; {REMEDY}")


def too_long(size: int) -> Caption:
    most = f"{MAX_TEXT_BYTES:,}"
    return Caption("", "caption_too_long", f"its caption has {size:,} bytes, {most} is the most; {REMEDY}")


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
