"""The public names of nextscene.judge, imported when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nextscene.judge

HEAVY = ("ray", "torch", "anthropic")


def loaded_by(program: str) -> set[str]:
    """Return those of HEAVY that a fresh process has loaded after `program`."""
    code = f"{program}\nimport sys\nprint(*({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_and_its_names_load_no_heavy_library() -> None:
    assert loaded_by("import nextscene.judge") == set()
    names = ", ".join(nextscene.judge.__all__)
    assert loaded_by(f"from nextscene.judge import {names}") == set()


def test_every_public_name_exists_and_is_listed() -> None:
    assert set(nextscene.judge.__all__) <= set(dir(nextscene.judge))
    assert all(getattr(nextscene.judge, name).__name__ == name for name in nextscene.judge.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Jury'"):
        _ = nextscene.judge.Jury
