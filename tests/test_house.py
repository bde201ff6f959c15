"""The layout and style of the code: one name for one thing, a test for each module, plain words."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

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


OLD_IDIOMS = (
    r'^"""(?:Of|What|Whether|How|Where|Why|When|Which)\b',
    r"\bRaises\b",
    r"\b(?:is|are) told\b",
    r"\bfor good\b",
    r"\blet go\b",
    r"fmt: (?:skip|off)",
    r"\b\w*(?:colour|behaviour|optimis|normalis|neighbour|initialis|recognis)\w*",
)
"""Forms that docstrings and comments no longer have: questions, passives without an agent, British spelling."""


def texts(module: Path) -> Iterator[str]:
    """Yield the comments and the triple-quoted strings of a module."""
    with (REPOSITORY / module).open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""')):
                yield token.string


def test_docstrings_and_comments_have_no_old_idiom() -> None:
    found = [
        f"{module}: {match[0]}"
        for module in modules()
        for text in texts(module)
        for idiom in OLD_IDIOMS
        for match in re.finditer(idiom, text)
    ]
    assert found == []
