"""The package as others install and import it: its public names, and the content of a wheel."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import nextscene
from tests.support import REPOSITORY

PUBLIC = {
    "Batch",
    "ClaudeJudge",
    "ClipDataset",
    "DataError",
    "FilmJudge",
    "LatentDataset",
    "Loader",
    "Mixture",
    "NextSceneError",
    "Question",
    "StoppedError",
    "UsageError",
    "Verdict",
    "evaluate",
    "stream",
}
OTHERS = ("common", "prompts", "judge", "shards", "curation", "training", "evaluation", "pipelines", "samples")
"""Names of the rooms. A user's project may have packages with the same names."""


def test_the_public_names() -> None:
    assert set(nextscene.__all__) == PUBLIC <= set(dir(nextscene))
    for name in PUBLIC:
        assert getattr(nextscene, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'ClipDatset'"):
        nextscene.ClipDatset  # noqa: B018


def test_a_name_that_needs_a_missing_package_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom nextscene import ClipDataset\nfrom nextscene import Loader"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: nextscene.Loader needs torch, which is not installed; install nextscene[train]:"
        " pip install 'nextscene[train]', in a clone pip install '.[train]'"
    )


def test_type_checkers_see_the_same_names_as_programs() -> None:
    tree = ast.parse((REPOSITORY / "nextscene" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == {name: f"nextscene.{module}" for name, module in nextscene._MODULE_OF.items()}


def test_to_import_the_package_loads_nothing_large() -> None:
    code = "import sys, nextscene; print(*{'av', 'anthropic', 'numpy', 'pyarrow', 'ray', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel of the package. It is built in a copy, since setuptools leaves folders beside the sources."""
    copy, target = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    for name in ("README.md", "LICENSE", "pyproject.toml"):
        shutil.copyfile(REPOSITORY / name, copy / name)
    for name in ("nextscene", *OTHERS):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, copy / name, symlinks=True, ignore=ignored)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(target)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, check=True)
    (built,) = target.glob("*.whl")
    return built


def test_a_wheel_holds_one_name_with_all_that_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"nextscene"}
    suffixes = (".py", ".toml", ".txt", ".csv", ".css", ".js", ".jinja")
    expected = {
        f"nextscene/{path.relative_to(REPOSITORY)}"
        for room in OTHERS
        for path in (REPOSITORY / room).rglob("*")
        if path.suffix in suffixes and path.name != ".gitignore"
    }
    assert names >= expected | {"nextscene/__init__.py", "nextscene/py.typed"}


def test_it_works_within_a_project_that_has_packages_of_the_same_names(wheel: Path, tmp_path: Path) -> None:
    installed, project = tmp_path / "installed", tmp_path / "project"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    for name in OTHERS:
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text(f"MINE = {name!r}")
    code = (
        f"import {', '.join(OTHERS)}, nextscene\n"
        f"assert [room.MINE for room in ({', '.join(OTHERS)})] == {list(OTHERS)!r}\n"
        "torch = {'Batch', 'Loader', 'Mixture', 'evaluate', 'stream'}\n"
        "for name in set(nextscene.__all__) - torch: getattr(nextscene, name)\n"
        "import nextscene.pipelines.build_nsp, nextscene.training.recipe, nextscene.evaluation.score\n"
        "print(nextscene.__file__)"
    )
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)
