"""Settings as flags: one for each, which counts before a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import click
from click.testing import CliRunner

from nextscene.common.config_loader import setting
from nextscene.pipelines.cli.command import Command
from nextscene.pipelines.cli.options import chosen, options


@dataclass(frozen=True)
class Inner:
    depth: int = setting(3, "How deep.")
    share: float = setting(0.5, "How much.")


@dataclass(frozen=True)
class Outer:
    RENAMED: ClassVar[Mapping[str, str]] = {"within": "inner"}

    name: Literal["one", "two"] = setting("one", "What it is called.")
    unit_size: int = setting(32, "Clips of a unit.")
    inner: Inner = field(default_factory=Inner)


def test_help_shows_the_sentence_and_the_default_of_the_field() -> None:
    @click.command(cls=Command)
    @options(Outer, without=("name",), in_recipes=("inner.share",))
    def command(**_: Any) -> None: ...

    shown = [line.split(maxsplit=2) for line in CliRunner().invoke(command, ["--help"]).stdout.splitlines()[3:-1]]
    assert shown == [
        ["--unit-size", "INTEGER", "Clips of a unit.  [default: 32]"],
        ["--inner.depth", "INTEGER", "How deep.  [default: 3]"],
        ["--inner.share", "FLOAT", "How much.  [recipe default: 0.5]"],
    ]


def test_old_names_of_settings_are_flags_that_warn() -> None:
    @click.command(cls=Command)
    @options(Outer)
    def command(**flags: Any) -> None:
        click.echo(chosen(Outer, None, flags).inner.depth)

    ended = CliRunner().invoke(command, ["--within.depth", "4"])
    assert ended.stdout == "4\n"
    assert ended.stderr == "--within.depth is now called --inner.depth; the old name works until the next release\n"


def flags_of(*arguments: str) -> dict[str, Any]:
    """What click makes of a command line of settings."""
    found: dict[str, Any] = {}

    @click.command()
    @options(Outer)
    def command(**flags: Any) -> None:
        found.update(flags)

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.stderr
    return found


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("unit_size = 4\n[inner]\ndepth = 9\nshare = 0.1\n")
    flags = flags_of("--unit-size", "5", "--inner.share", "0.25")
    assert chosen(Outer, path, flags) == Outer(unit_size=5, inner=Inner(depth=9, share=0.25))


def test_a_flag_that_gives_the_default_overrides_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("unit_size = 4\n")
    assert chosen(Outer, path, flags_of("--unit-size", "32")) == Outer()


def test_flags_that_are_not_given_leave_the_defaults() -> None:
    assert chosen(Outer, None, flags_of()) == Outer()
