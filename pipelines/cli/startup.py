"""The first import of every command: a check of the version of Python, and the installation of signal handlers.

This module imports only the standard library and uses only syntax that an old Python can parse. In a process that only
imports a command it does nothing.

Tested in tests/pipelines/cli/test_main.py, and tests/pipelines/test_bad_input.py.
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
    """Return True if this process was started as one of the scripts of `pipelines/`, or as `nextscene`."""
    main = getattr(sys.modules["__main__"], "__file__", None)
    return main is not None and (Path(main).name == "nextscene" or Path(main).resolve().parent == _HERE)


def _remedy() -> str:
    checkout = _HERE.parent
    environment = checkout / ".venv" / "bin" / "activate"
    if environment.is_file():
        return f"activate the environment that make has made: . {shlex.quote(str(environment))}"
    if not (checkout / "pyproject.toml").is_file():
        return "install nextscene again, with pip"
    return f"make one with `make shards`, or install it: pip install {shlex.quote(str(checkout))}"


def _fail(what: str) -> None:
    sys.stderr.write(f"error: {sys.executable} {what}; {_remedy()}\n")
    sys.stderr.flush()
    os._exit(_USAGE)


def _report_missing_package(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report a package that is missing before the command begins. Installed as `sys.excepthook`."""
    if not isinstance(error, ModuleNotFoundError):
        sys.__excepthook__(kind, error, trace)
        return
    _fail(f"has no package {error.name}")


if _is_a_command():
    if sys.version_info < _OLDEST:
        _fail(f"is Python {'.'.join(map(str, sys.version_info[:2]))}, and 3.11 or newer is needed")
    sys.excepthook = _report_missing_package

    from nextscene.pipelines.cli.stop_signals import STOPS

    STOPS.install()
