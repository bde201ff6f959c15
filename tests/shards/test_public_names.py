"""The names that `nextscene.shards` gives to programs, and what they load."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nextscene import shards
from tests.support import REPOSITORY


def test_the_public_names() -> None:
    assert set(shards.__all__) == {"Batch", "ClipDataset", "LatentDataset", "Loader", "Mixture", "stream"}
    for name in shards.__all__:
        assert getattr(shards, name).__name__ == name and name in dir(shards)
    with pytest.raises(AttributeError, match="has no attribute 'ClipDatset'"):
        shards.ClipDatset  # noqa: B018


def test_torch_is_loaded_with_the_loader_and_not_before() -> None:
    code = (
        "import sys, nextscene.shards as shards\n"
        "print(*{'av', 'numpy', 'pyarrow', 'torch'} & set(sys.modules))\n"
        "shards.ClipDataset, shards.LatentDataset, shards.Mixture\n"
        "print(*{'torch', 'ray'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
