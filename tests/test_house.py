"""The layout and style of the code: one name for one thing, a test for each module, plain words."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import pytest

from nextscene.pipelines.cli.flag_names import with_flags
from nextscene.pipelines.cli.main import SUBCOMMANDS
from tests.support import REPOSITORY
from tests.test_imports import BELOW

pytestmark = pytest.mark.slow

TESTED_IN = re.compile(r"Tested in (tests/[\w/]+\.py)")


def modules() -> Iterator[Path]:
    """Yield every module of the rooms, as its path below the repository."""
    for room in BELOW:
        for path in sorted((REPOSITORY / room).rglob("*.py")):
            yield path.relative_to(REPOSITORY)


def tree(module: Path) -> ast.Module:
    return ast.parse((REPOSITORY / module).read_text(encoding="utf-8"))


def test_ruff_checks_every_file() -> None:
    """It passes over what .gitignore names, for example a folder `data` within a room."""
    shown = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files", "."], cwd=REPOSITORY, capture_output=True, check=True
    )
    checked = {Path(line) for line in shown.stdout.decode().splitlines()}
    ours = {path for room in (*BELOW, "tests", "benchmarks") for path in (REPOSITORY / room).rglob("*.py")}
    assert sorted(ours - checked) == []


def test_no_class_name_stands_for_two_things() -> None:
    names = Counter(
        node.name for module in modules() for node in ast.walk(tree(module)) if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_every_module_has_a_test_of_its_name_or_says_where_it_is_tested() -> None:
    without = []
    for module in modules():
        docstring = ast.get_docstring(tree(module)) or ""
        named = TESTED_IN.findall(docstring)
        assert all((REPOSITORY / path).is_file() for path in named), module
        own = REPOSITORY / "tests" / module.parent / f"test_{module.name}"
        if module.name != "__init__.py" and not own.is_file() and not named:
            without.append(str(module))
    assert without == []


def test_every_test_of_a_room_lies_where_its_module_lies() -> None:
    """Folders of tests mirror those of the rooms, so that a test is found by the path of what it tests."""
    astray = [
        str(path.parent.relative_to(REPOSITORY))
        for room in BELOW
        for path in (REPOSITORY / "tests" / room).rglob("test_*.py")
        if not (REPOSITORY / path.parent.relative_to(REPOSITORY / "tests")).is_dir()
    ]
    assert astray == []


LONGEST_NAME = 75


def test_no_name_of_a_test_is_longer_than_a_line_of_a_report() -> None:
    too_long = [
        f"{path.relative_to(REPOSITORY)}: {node.name}"
        for path in sorted((REPOSITORY / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and len(node.name) > LONGEST_NAME
    ]
    assert too_long == []


Match = tuple[Path, re.Match[str]]


def matches(pattern: str, read: Callable[[Path], Iterable[str]]) -> Iterator[Match]:
    """Yield each module with each match of the pattern in its texts, which `read` gives."""
    for module in modules():
        for text in read(module):
            for match in re.finditer(pattern, text):
                yield module, match


def is_below_commands(one: Match) -> bool:
    return one[0].parts[0] != "pipelines"


OLD_IDIOMS = (
    r'^"""(?:Of|What|Whether|How|Where|Why|When|Which)\b',
    r"\bRaises\b",
    r"\b(?:is|are) told\b",
    r"\bfor good\b",
    r"\blet go\b",
    r"fmt: (?:skip|off)",
    r"\b\w*(?:colour|behaviour|optimis|normalis|neighbour|initialis|recognis|honour|grey)\w*",
    r"\b(?:learnt|spelt|judgements?|licences?|centred|centre)\b",
)
"""Forms that docstrings and comments no longer have: questions, passives without an agent, British spelling."""


def texts(module: Path) -> Iterator[str]:
    """Yield the comments and the triple-quoted strings of a module."""
    with (REPOSITORY / module).open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""')):
                yield token.string


def test_docstrings_and_comments_have_no_old_idiom() -> None:
    found = [f"{module}: {match[0]}" for idiom in OLD_IDIOMS for module, match in matches(idiom, texts)]
    assert found == []


def strings(module: Path) -> Iterator[str]:
    """Yield the strings of a module, docstrings among them; f-strings also as a whole, with {} for each value."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


RIDDLES = (
    r"(?<!there )(?<!There )\b(?:is|are) no (?!longer\b)\w+",
    r"\breckon\w*",
    r"\bnothing is (?:said|told) of\b",
    r"\bthat was meant\b",
    r"\b(?:no|without a) bound\b",
    r"\bgo(?:es|ing)? on\b",
    r"\bdo(?:es)? anew\b",
)
"""Forms of messages and help that a stranger reads twice; for example "is no file", for "is not a file"."""


def test_messages_have_no_riddle() -> None:
    found = [f"{module}: {match[0]}" for riddle in RIDDLES for module, match in matches(riddle, strings)]
    assert found == []


def docstrings(module: Path) -> set[str]:
    """Return the strings of a module that are statements: docstrings of modules, classes, functions and constants."""
    return {
        node.value.value
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def flags_of_commands() -> set[str]:
    commands = [one.load() for one in SUBCOMMANDS.values()]
    options = [one for command in commands for one in command.params if isinstance(one, click.Option)]
    return {"--help"} | {flag for one in options for flag in one.opts + one.secondary_opts if flag.startswith("--")}


def test_rooms_below_the_commands_name_no_flag() -> None:
    """Their messages name arguments, such as `out`, for which the commands put their flags: a library has none."""
    flags = flags_of_commands()
    assert {"--out", "--budget-usd", "--no-batches", "--limits.clip-seconds"} <= flags
    named = matches(r"--(?:[a-z][\w.-]*\w|{})", strings)
    assert [one for one in named if is_below_commands(one) and one[1][0] in flags | {"--{}"}] == []


def test_rooms_below_the_commands_name_no_script_of_theirs() -> None:
    scripts = {path.name for path in (REPOSITORY / "pipelines").glob("*.py")} - {"__init__.py"}
    named = matches(r"(?<![\w/])(?:pipelines/)?(\w+\.py)", strings)
    assert [one for one in named if is_below_commands(one) and one[1][1] in scripts] == []


WORDS_IN_BACKQUOTES = {"id", "video", "caption", "start", "end", "turned_down", "captioned_by", "manifest.json"} | {
    "pipeline.py",
    "nextscene.json",
    "torch_dtype",
}
"""Columns, and files and words of the model card, that texts name in backquotes as messages name settings."""


def test_names_in_backquotes_are_those_of_arguments_and_settings() -> None:
    """A command cannot put its flag in place of a name that it does not know, such as a misspelled one."""
    commands = [one.load() for one in SUBCOMMANDS.values()]
    named = matches(r"`([a-z]\w*(?:\.[a-z]\w*)*)`", lambda module: set(strings(module)) - docstrings(module))
    unknown = {
        f"{one[0]}: {one[1][0]}"
        for one in named
        if is_below_commands(one) and one[1][1] not in WORDS_IN_BACKQUOTES
        if all(with_flags(one[1][0], command) == one[1][0] for command in commands)
    }
    assert unknown == set()
