"""A command whose misuse is told as every error is: one line that names the thing, the reason and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import click

from nextscene.pipelines.cli import console

_ALIKE = 0.8
_MOST_OFFERED = 3
_WHOLE, _NUMBER = type(click.INT), type(click.FLOAT)


class Command(click.Command):
    """A command. What is wrong with its flags ends the process with one line on stderr and exit code 2."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            self._refuse_no_value(ctx, args)
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            console.fail(_in_words(error, self.get_params(ctx)), console.USAGE)

    def _refuse_no_value(self, ctx: click.Context, args: list[str]) -> None:
        """A shell puts nothing where a variable is not set; nobody means that, and a path of nothing is this folder.

        Without quotes around the variable, what is taken for the value is the flag that follows.
        """
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        parameters = self.get_params(ctx)
        flags = {flag for one in parameters if isinstance(one, click.Option) for flag in one.opts + one.secondary_opts}
        for parameter in parameters:
            for value in _texts(given.get(parameter.name or "")):
                if isinstance(parameter, click.Option) and value.partition("=")[0] in flags:
                    raise click.UsageError(
                        f"{_name(parameter)} has no value: what follows it, {value}, is a flag; give a value, or leave"
                        f" {_name(parameter)} out; is a variable not set?"
                    )
                if not value.strip():
                    raise click.UsageError(
                        f"{_name(parameter)} {value!r} is empty; give a value, or leave it out; is a variable not set?"
                    )


def _texts(value: object) -> Iterator[str]:
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, str):
            yield one


def _in_words(error: click.UsageError, parameters: Sequence[click.Parameter]) -> str:
    said = error.message.rstrip(".")
    if isinstance(error, click.NoSuchOption):
        flags = chain.from_iterable(parameter.opts for parameter in parameters if isinstance(parameter, click.Option))
        near = nearest(error.option_name, flags)
        return f"{error.option_name}: no such flag; {f'is {near} meant?' if near else '--help lists them'}"
    if isinstance(error, click.MissingParameter) and error.param:
        return f"{_name(error.param)} is missing; --help says what it is"
    if isinstance(error, click.BadOptionUsage):
        return f"{error.option_name}: {said[:1].lower()}{said[1:]}"
    if isinstance(error, click.BadParameter) and error.param:
        return f"{_name(error.param)}: {_reason(error.param.type, said)}"
    if extra := re.fullmatch(r"Got unexpected extra arguments? \((.*)\)", said, re.DOTALL):
        return f"{extra[1]}: it stands behind no flag; name the flag, and put a value with spaces into quotes"
    return said


def _reason(kind: Any, said: str) -> str:
    value, _, invalid = said.partition(" is not a valid")
    if invalid and isinstance(kind, (_WHOLE, _NUMBER)):
        what, such = ("a whole number", 1000) if isinstance(kind, _WHOLE) else ("a number", 0.5)
        return f"{value} is not {what}; write it in digits alone, such as {such}"
    if invalid and isinstance(kind, type(click.BOOL)):
        return f"{value} is neither true nor false"
    if isinstance(kind, click.Path) and " '" in said:  # click tells the kind of thing first
        thing = "folder" if not kind.file_okay else "file" if not kind.dir_okay else "file or folder"
        return f"{said[:1].lower()}{said[1:]}; name a {thing} that is there"
    return said


def _name(parameter: click.Parameter) -> str:
    return max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.human_readable_name


def nearest(flag: str, known: Iterable[str]) -> str:
    """The flags that may be meant, as text: those with the same words or the same last part, else those spelled alike.

    "" where none is near.
    """
    words = {other: set(re.split(r"[-._]+", other.strip("-"))) for other in dict.fromkeys(known) if other[:2] == "--"}
    given = set(re.split(r"[-._]+", flag.strip("-")))
    same = [other for other, own in words.items() if own == given or own - {other.strip("-").split(".")[0]} == given]
    alike = difflib.get_close_matches(flag, words, n=1, cutoff=_ALIKE)
    part = [other for other, own in words.items() if own < given]
    return " or ".join((same or alike or part)[:_MOST_OFFERED])
