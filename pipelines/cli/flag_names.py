"""Flags of a command in messages, in place of the names by which the rooms below `pipelines/` know arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import click

from nextscene.pipelines.cli import shell

_NAME = re.compile(r"`([a-z]\w*(?:\.[a-z]\w*)*)`", re.ASCII)
_COMMANDS = {"make_toy_models": "make-tiny"}
"""Functions that messages name as a remedy, and the subcommands that call them."""


class OldName(click.Option):
    """A flag's name in an earlier version. It is replaced before the flags are read."""

    def __init__(self, names: Sequence[str], now: str) -> None:
        super().__init__(names, hidden=True, expose_value=False)
        self.now = now


def running_commands() -> tuple[click.Command, ...]:
    """Return the command that this thread runs, last the one that the user called: `nextscene retry` runs `build`.

    In a thread that was started by a command, or without one, there are none.
    """
    context, found = click.get_current_context(silent=True), list[click.Command]()
    while context and not isinstance(context.command, click.Group):
        found.append(context.command)
        context = context.parent
    return tuple(found)


def with_flags(message: str, *commands: click.Command) -> str:
    """Return a message of the rooms below with flags of `commands`, by default the running ones, in place of names.

    The rooms below name an argument or a setting as Python does, in backquotes: `out`, `budget_usd`,
    `limits.clip_seconds`. An argument without a flag is named as in the command's usage: OUT. The name of the command
    itself, as `retry`, loses its backquotes. A name that is neither stays as it is, in its backquotes, which say that
    it is meant literally: most are columns of a manifest. Text of a user that looks like a parameter's name is replaced
    too, since nothing tells them apart.
    """
    of = commands or running_commands()
    known = dict(pair for command in of for pair in _names_of(command))

    def flag(name: re.Match[str]) -> str:
        subcommand = _COMMANDS.get(name[1])
        return known.get(name[1]) or (shell.command(subcommand) if of and subcommand else name[0])

    return _NAME.sub(flag, message)


def _names_of(command: click.Command) -> Iterator[tuple[str, str]]:
    if command.name:
        yield command.name, command.name
    for parameter in command.params:
        yield from _names(parameter)


def _names(parameter: click.Parameter) -> Iterator[tuple[str, str]]:
    """Yield the names by which a message may mean a parameter, each with how the command's user names it."""
    shown = parameter.now if isinstance(parameter, OldName) else shown_name(parameter)
    if parameter.name:
        yield parameter.name.replace("__", "."), shown
    for flag in parameter.opts if isinstance(parameter, click.Option) else ():
        yield flag.lstrip("-").replace("-", "_"), shown


def shown_name(parameter: click.Parameter) -> str:
    """Return the longest flag of an option, or an argument's name in the usage."""
    return max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.human_readable_name
