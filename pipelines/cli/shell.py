"""Commands as a person can copy them into a shell."""

from __future__ import annotations

import os
import shlex


def command(program: str, *words: object) -> str:
    """One of the commands here with its arguments, each quoted where a shell would take it for more than one word."""
    return " ".join(["python", f"pipelines/{program}", *(_quoted(str(word)) for word in words)])


def _quoted(word: str) -> str:
    """What no terminal shows, as line breaks and bytes that are no text, is escaped, which shells know as $'…'."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(_escaped(letter) for letter in word) + "'"


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return f"\\{letter}" if letter in "\\'" else letter
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))
