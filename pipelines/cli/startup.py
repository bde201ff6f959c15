"""The first import of every command: that this Python can run it, and that signals are answered from here on.

Only the standard library is imported, nothing that an old Python cannot read is written, and nothing happens in a
process that merely loads a command's file.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from types import TracebackType

_OLDEST = (3, 11)
_USAGE = 2
_HERE = Path(__file__).resolve().parents[1]


def _is_a_command() -> bool:
    main = getattr(sys.modules["__main__"], "__file__", None)
    return main is not None and Path(main).resolve().parent == _HERE


def _remedy() -> str:
    environment = _HERE.parent / ".venv" / "bin" / "activate"
    if environment.is_file():
        return f"activate the environment that make has made: . {shlex.quote(str(environment))}"
    return f"make one with `make shards`, or install it: pip install {shlex.quote(str(_HERE.parent))}"


def _fail(what: str) -> None:
    sys.stderr.write(f"error: {sys.executable} {what}; {_remedy()}\n")
    sys.stderr.flush()
    os._exit(_USAGE)


def _tell_what_is_missing(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The answer to what nobody else answers: before the command has begun, a package that is not there."""
    if not isinstance(error, ModuleNotFoundError):
        sys.__excepthook__(kind, error, trace)
        return
    _fail(f"has no package {error.name}")


if _is_a_command():
    if sys.version_info < _OLDEST:
        _fail(f"is Python {'.'.join(map(str, sys.version_info[:2]))}, and 3.11 or newer is needed")
    sys.excepthook = _tell_what_is_missing

    from nextscene.pipelines.cli.stop_signals import STOPS

    STOPS.install()
