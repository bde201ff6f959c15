"""A sample of `python -m tests.faults.mutations`: every third change by hand, and a few bits of each kind of file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.damaged_sets import changes, make
from tests.faults.mutations import KINDS, flipped, mutated

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("name", [*changes()][::3])
def test_a_file_that_says_something_else_is_found(made: Path, name: str) -> None:
    assert mutated(made, name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found(made: Path, kind: str) -> None:
    assert flipped(made, 2, kind)["MISSED"] == 0
