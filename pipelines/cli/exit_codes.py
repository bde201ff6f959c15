"""How every command ends: with one line where it could not do what it was asked, and with an exit code.

Tested in tests/pipelines/cli/test_stop_signals.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from nextscene.common.errors import DataError, StoppedError, UsageError
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.stop_signals import STOPS
from nextscene.shards.format.folder_mark import NotOurs

F = TypeVar("F", bound=Callable[..., None])


def handle_errors(go_on: str | Callable[[Mapping[str, Any]], str], damaged: str = "{}") -> Callable[[F], F]:
    """Have a command end as its exit codes say, also when a signal asks it to.

    `go_on` tells what is kept and how to go on; it may depend on what the command was given. `damaged` is the line for
    a damaged dataset, around what is wrong; where it names one of {what was given}, a file that is gone is damage too.
    """

    def decorate(command: F) -> F:
        @wraps(command)
        def run(**given: Any) -> None:
            console.log_to_stderr()
            after = go_on if isinstance(go_on, str) else go_on(given)
            before = STOPS.install()
            try:
                try:  # a signal that comes as the command ends, even within `finally`, is caught all the same
                    STOPS.begin()
                    command(**given)
                finally:
                    STOPS.end()
            except KeyboardInterrupt:
                console.fail(f"{STOPS.words}; {after}", STOPS.code)
            except Exception as error:
                _fail(error, after, damaged.format(error, **given))
                raise
            finally:
                STOPS.restore(before)

        return cast(F, run)

    return decorate


def _fail(error: Exception, go_on: str, damaged: str) -> None:
    """End the process with the error's line and exit code. Return for errors that a command may not end with."""
    match error:
        case NotOurs():
            console.fail(f"--out {error}", error.exit_code)
        case UsageError():
            console.fail(" ".join(str(error).splitlines()), error.exit_code)
        case ModuleNotFoundError():
            console.fail(f"{error.name} is not installed; pip install '.[train]' brings it", UsageError.exit_code)
        case DataError():
            console.fail(damaged, error.exit_code)
        case FileNotFoundError() if damaged != str(error):
            console.fail(damaged, DataError.exit_code)
        case BrokenPipeError():
            return  # click's to answer: whoever read the output has had enough
        case StoppedError() | OSError():
            console.fail(f"{error}\n{go_on[:1].upper()}{go_on[1:]}.", StoppedError.exit_code)
