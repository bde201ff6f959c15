"""The tree of errors: every error that a user can act on belongs to it, and ends a command with its exit code."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import nextscene
from nextscene.common.errors import DataError, NextSceneError, StoppedError, UsageError

CODES = {UsageError: 2, DataError: 1, StoppedError: 3}


def subclasses(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


@pytest.mark.parametrize("room", ["common", "judge", "shards.format", "curation"])
def test_every_error_has_the_exit_code_of_its_branch(room: str) -> None:
    package = importlib.import_module(f"nextscene.{room}")
    for module in pkgutil.iter_modules(package.__path__, f"nextscene.{room}."):
        importlib.import_module(module.name)
    for kind in subclasses(NextSceneError) - {NextSceneError}:
        branches = [branch for branch in CODES if issubclass(kind, branch)]
        assert len(branches) == 1 and kind.exit_code == CODES[branches[0]], kind  # type: ignore[attr-defined]


def test_the_branches_are_public() -> None:
    assert {nextscene.NextSceneError, nextscene.UsageError, nextscene.DataError, nextscene.StoppedError} == {
        NextSceneError,
        *CODES,
    }
