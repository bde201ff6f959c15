"""The modes of a build as separate commands: `nextscene status`, `verify`, `retry` and `estimate`.

Each calls the command `build` with the flag of that mode.

Tested in tests/pipelines/test_out_alone.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from nextscene.pipelines.build_nsp import RETRIABLE
from nextscene.pipelines.build_nsp import main as build
from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.command import Command

F = TypeVar("F", bound=Callable[..., Any])
_MODES = frozenset(["verifying", "telling", "retry", "stop_after", "estimating", "assume"])


def _flags_of_build(without: frozenset[str]) -> Callable[[F], F]:
    """Add the flags of `build` except those in `without`, which has the names of their parameters."""

    def decorate(command: F) -> F:
        shown = [one for one in build.params if one.name not in without]
        command.__dict__.setdefault("__click_params__", []).extend(reversed(shown))
        return command

    return decorate


@click.command(cls=Command)
@click.argument("out")
@click.pass_context
def status(context: click.Context, out: str) -> None:
    """Show how far the build of the dataset in OUT is.

    It changes nothing, and works during a build and after one. OUT is a path or s3://…

    Exit codes: 0 done, 2 wrong usage, 3 stopped by storage, or by SIGTERM, SIGHUP or SIGUSR1, 130 by Ctrl-C.
    """
    context.invoke(build, out=out, telling=True)


@click.command(cls=Command)
@click.argument("out")
@click.pass_context
def verify(context: click.Context, out: str) -> None:
    """Read the dataset in OUT back and check all of it.

    Files are checked by SHA256SUMS; rows, sums and lists by what they were made from. It changes nothing. OUT is a path
    or s3://…

    Exit codes: 0 all is right, 1 something is wrong, 2 wrong usage, 3 stopped by storage, or by SIGTERM, SIGHUP or
    SIGUSR1, 130 by Ctrl-C.
    """
    context.invoke(build, out=out, verifying=True)


@click.command(cls=Command)
@click.argument("out")
@click.argument("outcomes", nargs=-1, metavar="OUTCOMES...")
@_flags_of_build(without=_MODES | {"out"})
@click.pass_context
def retry(context: click.Context, /, out: str, outcomes: tuple[str, ...], **flags: Any) -> None:
    """Process the clips of the dataset in OUT that ended as OUTCOMES again.

    OUTCOMES are one or more of rejected, dropped, refused, failed, quarantined and absent. Clips that are not decided
    yet come first; all others stay as they are. A retry that was stopped continues with the same command.

    Exit codes: as those of `build`.
    """
    if not outcomes:
        console.fail(f"OUTCOMES is missing; name one or more of {', '.join(RETRIABLE)}", console.USAGE)
    context.invoke(build, out=out, retry=",".join(outcomes), **flags)


@click.command(cls=Command)
@_flags_of_build(without=_MODES - {"assume"})
@click.pass_context
def estimate(context: click.Context, /, **flags: Any) -> None:
    """Estimate what the judge claude would cost; nothing is sent.

    The flags are those that the build will get, --judge claude among them.

    Exit codes: 0 done, 2 wrong usage, 3 stopped by storage, or by SIGTERM, SIGHUP or SIGUSR1, 130 by Ctrl-C.
    """
    context.invoke(build, estimating=True, **flags)
