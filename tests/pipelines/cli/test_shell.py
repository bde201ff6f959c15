"""Commands that are told to be copied: a shell makes of them the very words that were meant."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nextscene.pipelines.build_nsp import main as build_nsp
from nextscene.pipelines.cli.main import main as nextscene
from nextscene.pipelines.cli.shell import command
from nextscene.pipelines.show import main as show
from tests.support import SMALL, build_inline, captioned_spans

ODD = [
    "a b",
    "it's",
    'a "b"',
    "$HOME",
    "`id`",
    "a;b & c|d > e",
    "*",
    "~/x",
    "-x",
    "é ü 日本",
    "#a",
    "a\\b",
    "!x",
    "{a,b}",
    "line\nbreak",
    "tab\there",
    "\x1b[31m",
    "'\n$HOME\\",
    "no\udcfftext",
    "a\u00a0b",
    "",
]


def words(line: str) -> list[bytes]:
    """What bash hands to a program of that line."""
    shown = re.sub(r"^python ", "printf '%s\\\\0' ", line)
    done = subprocess.run(["bash", "-c", shown], capture_output=True, check=True, env={"HOME": "/home/other"})
    return done.stdout.split(b"\0")[:-1]


def test_a_shell_gets_the_words_that_were_meant() -> None:
    line = command("show", *ODD)
    assert line.isprintable()
    assert words(line) == [b"pipelines/show.py", *map(os.fsencode, ODD)]


def test_plain_words_stay_as_they_are() -> None:
    told = command("show", "data/nsp-film", Path("/a"), 3, "s3://bucket/x")
    assert told == "python pipelines/show.py data/nsp-film /a 3 s3://bucket/x"


def test_a_program_that_a_shell_would_not_find_is_named_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/nextscene"])
    with click.Context(nextscene):
        monkeypatch.setenv("PATH", "/nowhere")
        assert command("verify", "x") == ".venv/bin/nextscene verify x"
        monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
        assert command("verify", "x") == "nextscene verify x"


def test_what_commands_say_comes_next_names_the_very_folder(tmp_path: Path) -> None:
    out = tmp_path / "-a b's $HOME é"
    build_inline(captioned_spans(tmp_path, 1), out, SMALL)
    runner = CliRunner()
    said = runner.invoke(show, [str(out)]).stdout + runner.invoke(build_nsp, ["--out", str(out), "--verify"]).stdout
    (out / "manifest.json").write_bytes(b"")
    said += runner.invoke(build_nsp, ["--out", str(out), "--verify"]).stdout
    told = [line.split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("next ")]
    assert len(told) == 2, said
    remove, build = map(str.strip, said.splitlines()[-2:])
    assert all(os.fsencode(out) in words(line) for line in [*told, build]), told
    subprocess.run(["bash", "-c", remove], check=True)
    assert not (out / "manifest.json").exists()
