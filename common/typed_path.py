"""Typing mistakes in paths: what shells, other systems and clipboards leave in them.

Tested in tests/pipelines/test_wrong_inputs.py.
"""

from __future__ import annotations

import os
import re

from nextscene.common.filesystem import BadLocation

_QUOTES = ("''", '""', "“”", "‘’", "«»", "``")
_DRIVE = re.compile(r"([A-Za-z]):([\\/].*)?", re.DOTALL)
_VARIABLE = re.compile(r"(?:^|/)(\$\w+|\$\{\w+\}|%\w+%)")


def check_typed_path(text: str) -> str:
    """Return the text. Raise BadLocation for a path that does not exist and contains a typing mistake, with the remedy.

    A path that exists is accepted as it is.
    """
    if not text.strip():
        return text
    if "://" not in text and os.path.lexists(os.path.expanduser(text)):  # noqa: PTH111 that of Path raises
        return text
    if len(text) > 1 and text[0] + text[-1] in _QUOTES:
        raise BadLocation(f"{text} has quotes around it that are part of the name; give it without")
    if text != text.strip():
        raise BadLocation(f"{text!r} begins or ends with white space; give it without")
    if "://" in text:
        return text
    if drive := _DRIVE.fullmatch(text):
        rest = (drive[2] or "").replace("\\", "/")
        raise BadLocation(
            f"{text} is a path of Windows; give it as this system has it, under WSL as /mnt/{drive[1].lower()}{rest}"
        )
    if "\\" in text:
        raise BadLocation(f"{text} is not there, and has \\ where / may be meant; write {text.replace(chr(92), '/')}")
    if variable := _VARIABLE.search(text):
        raise BadLocation(f"{text}: the shell put nothing in for {variable[1]}; write it out, or not in single quotes")
    return text
