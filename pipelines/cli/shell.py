"""Commands to copy into a shell, in the form in which the current command was started."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # `nextscene --help` is quick without it
    from nextscene.common.storage import Storage

_SCRIPTS = {
    "build": "build_nsp.py",
    "encode": "encode_latents.py",
    "make-tiny": "make_tiny.py",
    "fetch-film": "fetch_film.py",
}
"""Subcommand → script, for scripts whose name differs from the subcommand."""
_MODES = {"status": "--status", "verify": "--verify", "retry": "--retry"}


def command(name: str, *words: object) -> str:
    """Return a command with its arguments, each quoted if the shell needs it.

    `name` is a subcommand of `nextscene`; for modes of `build` the first argument is OUT. In a process that was not
    started as `nextscene …`, return the command of the equivalent script.
    """
    parts = (_program(), name, *words) if _is_subcommand() else ("python", *_script(name, *words))
    return " ".join(_quoted(str(part)) for part in parts)


def deletion(out: Storage, path: str) -> str:
    """Return the command that deletes a file of a folder; for an object store a # comment, which a shell ignores."""
    local = out.local_path(path)
    return f"# delete {out.display_uri}/{path}" if local is None else f"rm {_quoted(str(local))}"


def _is_subcommand() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.find_root().command, click.Group)


def _program() -> str:
    """Return the program `nextscene`, with its path if this process is one that a shell would not find by its name."""
    own = Path(sys.argv[0])
    if own.name != "nextscene" or shutil.which("nextscene"):
        return "nextscene"
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def _script(name: str, *words: object) -> tuple[object, ...]:
    if name in _MODES:
        out, *more = words
        return f"pipelines/{_SCRIPTS['build']}", "--out", out, _MODES[name], *more
    return f"pipelines/{_SCRIPTS.get(name, f'{name}.py')}", *words


def _quoted(word: str) -> str:
    """Quote a word for a shell. A word with characters that cannot be printed is escaped in the form $'…'."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(_escaped(letter) for letter in word) + "'"


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return f"\\{letter}" if letter in "\\'" else letter
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))
