"""Imports: the rooms that each room may import, and processes that must load neither Ray nor torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY

pytestmark = pytest.mark.slow

BELOW = {
    "common": set(),
    "samples": set(),
    "prompts": set(),
    "judge": {"common", "prompts"},
    "shards": {"common"},
    "curation": {"common", "prompts", "judge", "shards"},
    "training": {"common", "prompts", "judge", "shards", "samples"},
    "evaluation": {"common", "prompts", "judge", "shards", "curation", "training", "samples"},
    "pipelines": {"common", "prompts", "judge", "shards", "curation", "training", "evaluation", "samples"},
}
"""For each room, the rooms that it may import."""


def imported_modules(path: Path) -> set[str]:
    """Return the full names that a file imports, also within functions and under TYPE_CHECKING."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    upward = {
        (str(path.relative_to(REPOSITORY)), name)
        for path in (REPOSITORY / room).rglob("*.py")
        for name in imported_modules(path)
        if name.startswith("nextscene.") and name.split(".")[1] not in {room, *BELOW[room]}
    }
    assert upward == set()


def test_a_room_is_imported_under_one_name() -> None:
    """The rooms are in the root of a clone, where an import by the old name finds them and must fail."""
    for room in BELOW:
        done = subprocess.run(
            [sys.executable, "-c", f"import {room}"], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, room
        assert done.stderr.splitlines()[-1] == f"ImportError: {room} is a part of nextscene; import nextscene.{room}"


def test_each_room_is_a_link_in_the_package() -> None:
    links = {path.name for path in (REPOSITORY / "nextscene").iterdir() if path.is_symlink()}
    assert links == {*BELOW}
    assert all((REPOSITORY / "nextscene" / name).resolve() == REPOSITORY / name for name in links)


def imported(program: str, cwd: Path) -> set[str]:
    """Return which of ray and torch `program` imports. Stand-ins in `cwd` let each import succeed, so it is seen."""
    code = f"import sys\n{program}\nprint(*({{'ray', 'torch'}} & set(sys.modules)))"
    search = f"import sys; sys.path[:0] = [{str(cwd)!r}, {str(REPOSITORY)!r}]\n"
    done = subprocess.run([sys.executable, "-c", search + code], cwd=cwd, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def stand_in(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
    return folder


LOADING = (
    "nextscene.shards.loading.collate",
    "nextscene.shards.loading.loader",
    "nextscene.shards.loading.buffer_pool",
    "nextscene.shards.loading.streaming",
)
"""Modules that training needs, and a build does not."""

ON_RAY = ("nextscene.training.distributed.ray_train",)
"""The only module that runs training on Ray."""

IMPORT_ALL = f"""
import importlib, pkgutil
for package in {{packages!r}}:
    package = "nextscene." + package
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if module.name not in {(*LOADING, *ON_RAY)!r}:
            importlib.import_module(module.name)
"""


def test_the_stand_ins_would_be_seen(tmp_path: Path) -> None:
    assert imported("import ray, torch", stand_in(tmp_path, "ray", "torch")) == {"ray", "torch"}


@pytest.mark.parametrize("packages", [("common", "judge", "prompts"), ("shards",)])
def test_judge_prompts_and_shards_import_neither_ray_nor_torch(packages: tuple[str, ...], tmp_path: Path) -> None:
    assert imported(IMPORT_ALL.format(packages=packages), stand_in(tmp_path, "ray", "torch")) == set()


def test_no_module_of_a_run_imports_torch_and_no_package_imports_ray_by_itself(tmp_path: Path) -> None:
    assert (
        imported("import nextscene.curation, nextscene.judge, nextscene.prompts, nextscene.shards", tmp_path) == set()
    )
    everything = IMPORT_ALL.format(packages=("common", "curation", "judge", "pipelines", "prompts", "shards"))
    assert "torch" not in imported(everything, stand_in(tmp_path, "torch"))


def test_a_command_that_does_no_work_does_not_wait_for_ray(tmp_path: Path) -> None:
    assert imported("import nextscene.pipelines.build_nsp", stand_in(tmp_path, "ray")) == set()


def test_a_trainer_imports_ray_only_to_be_put_on_it(tmp_path: Path) -> None:
    assert imported(IMPORT_ALL.format(packages=("training",)), stand_in(tmp_path, "ray")) == {"torch"}
