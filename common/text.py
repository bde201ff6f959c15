"""Untrusted text made safe to store and to print.

Tested in tests/curation/test_storable_row.py.
"""

from __future__ import annotations

import re

MAX_TEXT_BYTES = 1 << 20
"""The longest text that is data, in bytes of UTF-8."""

MAX_EVIDENCE = 4096
MAX_NAME = 200
_MAX_WORD = 64
# A lone surrogate cannot be encoded in UTF-8; a control character can control the reader's terminal.
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_BETWEEN_WORDS = re.compile(r"[^\w.-]+", re.ASCII)


def readable_text(text: str, longest: int = MAX_EVIDENCE) -> str:
    """Return a text for people to read, `longest` characters at most.

    Control characters other than tab, line feed and carriage return, and lone surrogates are escaped. A longer text is
    cut, with a mark that says so.
    """
    spelled = _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text[:longest])
    if max(len(text), len(spelled)) <= longest:
        return spelled
    mark = f"… (cut, of {len(text):,} characters)"
    return spelled[: longest - len(mark)] + mark


def storable_text(text: str) -> str:
    """Return a text that is data, with `?` for zero bytes and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def identifier(text: str) -> str:
    """Return a word to count by: ASCII letters, digits, `_`, `.` and `-`, 64 at most; "" if there are none."""
    return _BETWEEN_WORDS.sub("_", text[:_MAX_WORD]).strip("_")


def many(count: int, thing: str) -> str:
    """Return a count with its thing, in the plural unless there is one: `1 clip`, `2,000 clips`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def first_line(error: BaseException) -> str:
    """Return the first line with text of an error's message, or the name of its class if there is none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
