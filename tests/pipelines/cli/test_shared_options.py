"""Flags that several commands have: their help is written once, and each command shows it."""

from __future__ import annotations

import ast
from collections import Counter

import click
import pytest

from nextscene.pipelines import build_nsp, encode_latents, evaluate, make_tiny, train
from tests.support import REPOSITORY


def test_no_help_of_a_flag_is_written_twice() -> None:
    calls = [
        node
        for path in (REPOSITORY / "pipelines").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "click.option"
    ]
    written = Counter(
        (ast.unparse(call.args[0]), ast.unparse(keyword.value))
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "help"
    )
    assert len(written) > 40
    assert [flag for flag, count in written.items() if count > 1] == []


@pytest.mark.parametrize(
    ("flag", "commands"),
    [
        ("ray_address", (build_nsp.main, train.main)),
        ("data", (encode_latents.main, make_tiny.main)),
        ("ltx", (encode_latents.main, train.main)),
        ("prices", (train.main, evaluate.main)),
    ],
)
def test_a_shared_flag_is_the_same_in_each_command(flag: str, commands: tuple[click.Command, ...]) -> None:
    one, other = (next(option for option in command.params if option.name == flag) for command in commands)
    assert one.to_info_dict() | {"type": None} == other.to_info_dict() | {"type": None}
    assert type(one.type) is type(other.type)
