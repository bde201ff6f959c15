"""Old names of flags, and suggestions. What each kind of misuse says is in tests/pipelines/test_wrong_inputs.py."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from nextscene.pipelines.cli.command import Command, nearest, renamed


@click.command(cls=Command)
@click.option("--judge-model", help="The model.")
@click.option("--plain", is_flag=True, help="Plainly.")
@click.argument("words", nargs=-1)
@renamed("--judge.model", "--judge-model")
@renamed("--simple", "--plain")
def main(**given: Any) -> None:
    click.echo(json.dumps(given, sort_keys=True))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("form", [["--judge.model", "m"], ["--judge.model=m"]])
def test_an_old_name_of_a_flag_works_and_names_the_new_one(form: list[str]) -> None:
    ended = run(*form, "--simple")
    assert (ended.exit_code, ended.stdout) == (0, '{"judge_model": "m", "plain": true, "words": []}\n')
    assert ended.stderr.splitlines() == [
        f"{old} is now called {new}; the old name works until the next release"
        for old, new in (("--judge.model", "--judge-model"), ("--simple", "--plain"))
    ]


@pytest.mark.parametrize(
    "both", [["--judge.model", "a", "--judge-model", "b"], ["--judge-model=b", "--judge.model=a"]], ids=" ".join
)
def test_a_flag_given_by_both_of_its_names_is_refused(both: list[str]) -> None:
    ended = run(*both)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr == (
        "error: --judge.model is the old name of --judge-model, and --judge-model is given too; name one\n"
    )


def test_behind_a_double_hyphen_nothing_is_a_flag() -> None:
    ended = run("--", "--simple")
    assert (ended.stdout, ended.stderr) == ('{"judge_model": null, "plain": false, "words": ["--simple"]}\n', "")


def test_old_names_are_neither_shown_nor_suggested() -> None:
    assert "--simple" not in run("--help").stdout
    assert run("--simpl").stderr == "error: --simpl: no such flag; --help lists them\n"


def test_a_flag_with_the_same_words_is_suggested_before_one_spelled_alike() -> None:
    known = ["--rules.min-width", "--encode.width", "--rules.min-height"]
    assert nearest("--rules.min_width", known) == "--rules.min-width"
    assert nearest("--width", known) == "--encode.width"
    assert nearest("--rules.min-widht", known) == "--rules.min-width"
    assert nearest("--xyzzy", known) == ""
