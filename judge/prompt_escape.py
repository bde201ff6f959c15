"""Escaping of text from data, so that it stays a value in the template that it is put into.

Tested in tests/judge/api/test_wire.py.
"""

from __future__ import annotations

import re

# The names that the templates of the paper give to the values and to the answer.
_NAMES = r"scene\s+description|description|caption|input|output|verdict|criteria"
_LABEL = re.compile(rf"[\W_]*(?:{_NAMES})[\W_]*?[:\uff1a]", re.IGNORECASE)


def as_value(text: str) -> str:
    """Return the text on one line, and without a label of the template at its begin: `Caption:` becomes `Caption -`.

    Every kind of line break becomes a space. No word is lost.
    """
    line = " ".join(text.splitlines())
    defused: list[str] = []
    at = 0
    while label := _LABEL.match(line, at):
        defused.append(f"{line[at : label.end() - 1]} -")
        at = label.end()
    return "".join(defused) + line[at:]
