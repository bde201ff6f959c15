"""Commands that report wrong flags like every other error: in one line that names the thing, the reason, the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import click

from nextscene.pipelines.cli import console
from nextscene.pipelines.cli.flag_names import OldName, shown_name

F = TypeVar("F", bound=Callable[..., Any])

CONTEXT: Mapping[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

_SIMILAR = 0.8
_MAX_SUGGESTIONS = 3
_WHOLE, _NUMBER = type(click.INT), type(click.FLOAT)


class Command(click.Command):
    """A command. An error in its flags ends the process with one line on stderr and exit code 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"context_settings": CONTEXT, **kwargs})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            _refuse_single_dashes(args, self.get_params(ctx))
            args = [*_with_names_of_today(args, self.get_params(ctx))]
            self._refuse_misplaced_words(ctx, args)
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            console.fail(describe_misuse(error, self.get_params(ctx)), console.USAGE)

    def _refuse_misplaced_words(self, ctx: click.Context, args: list[str]) -> None:
        """Raise UsageError for an empty value, a flag in place of a value, or a word that stands behind no flag.

        An unset shell variable causes the first two. An empty path would be read as the current folder, which is never
        intended.
        """
        given, extra, _ = self.make_parser(ctx).parse_args(list(args))
        parameters = self.get_params(ctx)
        flags = {flag for one in parameters if isinstance(one, click.Option) for flag in one.opts + one.secondary_opts}
        for parameter in parameters:
            for value in _texts(given.get(parameter.name or "")):
                if isinstance(parameter, click.Option) and value.partition("=")[0] in flags:
                    raise click.UsageError(
                        f"{shown_name(parameter)} has no value: what follows it, {value}, is a flag; give a value, or"
                        f" leave {shown_name(parameter)} out; is a variable not set?"
                    )
                if not value.strip():
                    raise click.UsageError(
                        f"{shown_name(parameter)} {value!r} is empty; give a value, or leave it out; is a variable not"
                        " set?"
                    )
        if extra:
            raise click.UsageError(
                f"{' '.join(extra)}: it stands behind no flag{_remedy_for_extra(extra[0], parameters)}, and put a value"
                " with spaces into quotes"
            )


def renamed(old: str, now: str) -> Callable[[F], F]:
    """Accept `old` for the flag `now` until the next release, with a warning."""
    return click.option(old, "old" + re.sub(r"\W", "_", old), cls=OldName, now=now)


def _refuse_single_dashes(args: Sequence[str], parameters: Iterable[click.Parameter]) -> None:
    """Raise UsageError for the name of a flag behind one dash, which click would read as single letters."""
    known = {flag for one in parameters for flag in one.opts if flag[:2] == "--"}
    for word in args[: args.index("--") if "--" in args else None]:
        flag = word.partition("=")[0]
        if len(flag) > 2 and f"-{flag}" in known:
            raise click.UsageError(f"{flag}: no such flag; is -{flag} meant?")


def _with_names_of_today(args: Iterable[str], parameters: Iterable[click.Parameter]) -> Iterator[str]:
    """Yield the words of a command line, with old names of flags replaced by new ones. Print a warning for each.

    Raise UsageError for a flag that is given by both.
    """
    names = {flag: one.now for one in parameters if isinstance(one, OldName) for flag in one.opts}
    words = list(args)
    flags = {word.partition("=")[0] for word in words[: words.index("--") if "--" in words else None]}
    is_flags = True
    for word in words:
        is_flags = is_flags and word != "--"
        flag, equals, value = word.partition("=")
        if is_flags and flag in names:
            if twice := [other for other in flags - {flag} if names.get(other, other) == names[flag]]:
                raise click.UsageError(
                    f"{flag} is the old name of {names[flag]}, and {twice[0]} is given too; name one"
                )
            console.err.print(f"{flag} is now called {names[flag]}; the old name works until the next release")
            yield f"{names[flag]}{equals}{value}"
        else:
            yield word


def _texts(value: object) -> Iterator[str]:
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, str):
            yield one


def describe_misuse(error: click.UsageError, parameters: Sequence[click.Parameter]) -> str:
    """Return the line that reports an error of click about a command line."""
    message = error.message.rstrip(".")
    if isinstance(error, click.NoSuchOption):
        shown = (one for one in parameters if isinstance(one, click.Option) and not one.hidden)
        near = nearest(error.option_name, chain.from_iterable(one.opts for one in shown))
        return f"{error.option_name}: no such flag; {f'is {near} meant?' if near else '--help lists them'}"
    if isinstance(error, click.MissingParameter) and error.param:
        return f"{shown_name(error.param)} is missing; --help says what it is"
    if isinstance(error, click.BadOptionUsage):
        return f"{error.option_name}: {message[:1].lower()}{message[1:]}"
    if isinstance(error, click.BadParameter) and error.param:
        return f"{shown_name(error.param)}: {_reason(error.param.type, message)}"
    return message


def _remedy_for_extra(word: str, parameters: Sequence[click.Parameter]) -> str:
    if takes := [shown_name(one) for one in parameters if isinstance(one, click.Argument)]:
        return f", and only {' '.join(takes)} does; leave it out"
    if any("--source" in one.opts for one in parameters):
        return f"; give the source as --source {word}, and OUT as --out OUT"
    return "; name the flag"


def _reason(kind: Any, message: str) -> str:
    value, _, invalid = message.partition(" is not a valid")
    if invalid and isinstance(kind, (_WHOLE, _NUMBER)):
        what, such = ("a whole number", 1000) if isinstance(kind, _WHOLE) else ("a number", 0.5)
        return f"{value} is not {what}; write it in digits alone, such as {such}"
    if invalid and isinstance(kind, type(click.BOOL)):
        return f"{value} is neither true nor false"
    if isinstance(kind, click.Path) and " '" in message:  # click's message begins with "File" or "Directory"
        thing = "folder" if not kind.file_okay else "file" if not kind.dir_okay else "file or folder"
        return f"{message[:1].lower()}{message[1:]}; name a {thing} that is there"
    return message


def nearest(flag: str, known: Iterable[str]) -> str:
    """Return the flags that may be meant, joined by "or"; "" if none is similar.

    Flags with the same words or the same last part are preferred, then one with a similar spelling, then flags whose
    words are among those of `flag`.
    """
    words = {other: set(re.split(r"[-._]+", other.strip("-"))) for other in dict.fromkeys(known) if other[:2] == "--"}
    given = set(re.split(r"[-._]+", flag.strip("-")))
    same = [other for other, own in words.items() if own == given or own - {other.strip("-").split(".")[0]} == given]
    alike = difflib.get_close_matches(flag, words, n=1, cutoff=_SIMILAR)
    part = [other for other, own in words.items() if own < given]
    return " or ".join((same or alike or part)[:_MAX_SUGGESTIONS])
