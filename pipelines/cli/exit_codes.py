"""Error lines and exit codes of all commands.

Tested in tests/pipelines/cli/test_stop_signals.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

from nextscene.common.errors import DataError, StoppedError, UsageError
from nextscene.common.lazy_exports import INSTALL_TRAINER
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.stop_signals import STOPS
from nextscene.shards.format.folder_mark import NotOurs

F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True)
class GoOn:
    """Two phrases for a command that was stopped: the work that is kept, and how to continue."""

    kept: str
    again: str = "run the same command again to continue"


def handle_errors(go_on: GoOn | Callable[[Mapping[str, Any]], GoOn], damaged: str = "{}") -> Callable[[F], F]:
    """Return a decorator that ends a command with one line and an exit code for each kind of error, or a signal.

    `go_on` ends the line of a stop; as a function, it gets the command's parameters. `damaged` is the
    template of the line for a damaged dataset: {} is the error, and {name} the command's parameter of that name. If the
    template has more than {}, a missing file counts as damage too.
    """

    def decorate(command: F) -> F:
        @wraps(command)
        def run(**given: Any) -> None:
            console.log_to_stderr()
            after = go_on if isinstance(go_on, GoOn) else go_on(given)
            before = STOPS.install()
            try:
                try:  # the outer try also catches a signal that arrives in the `finally` below
                    STOPS.begin()
                    command(**given)
                finally:
                    STOPS.end()
            except KeyboardInterrupt:
                console.fail(f"{STOPS.words}; {after.kept}; {after.again}", STOPS.code)
            except Exception as error:
                _fail(error, after, damaged.format(error, **given))
                raise
            finally:
                STOPS.restore(before)

        return cast(F, run)

    return decorate


def _fail(error: Exception, go_on: GoOn, damaged: str) -> None:
    """End the process with the line and exit code of the error. Return if the error is of none of the known kinds."""
    match error:
        case NotOurs():
            console.fail(f"`out` {error}", error.exit_code)
        case UsageError():
            console.fail(" ".join(str(error).splitlines()), error.exit_code)
        case ModuleNotFoundError():
            console.fail(f"{error.name} is not installed; {INSTALL_TRAINER}", UsageError.exit_code)
        case DataError():
            console.fail(damaged, error.exit_code)
        case FileNotFoundError() if damaged != str(error):
            console.fail(damaged, DataError.exit_code)
        case BrokenPipeError():
            return  # click handles it: the reader of the output closed the pipe
        case StoppedError(needs_other_command=True):
            console.fail(error, error.exit_code)
        case StoppedError() | OSError():
            kept = f"{go_on.kept[:1].upper()}{go_on.kept[1:]}"
            console.fail(f"{error}\n{kept}; once that is mended, {go_on.again}.", StoppedError.exit_code)
