"""What `ray job submit --working-dir .` sends, packed by Ray's own code."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from zipfile import ZipFile

from ray._private.runtime_env.packaging import create_package

from tests.support import REPOSITORY
from tests.test_imports import BELOW

BIG = 20 << 20
LEFT_HERE = (
    ".git/objects/pack",
    ".venv/lib/torch.so",
    ".venv-interop/hub/lib/torch.so",
    "venv/lib/torch.so",
    "data/nsp/a.tar",
    "runs/film/step-1/model.bin",
    "films/long.mp4",
    "out/shards/train/000/nsp-000000.tar",
    "nextscene.egg-info/PKG",
)


def test_a_job_s_package_leaves_data_runs_and_environments_out(tmp_path: Path) -> None:
    """Also where the folder is no git repository: Ray reads the two files itself."""
    folder = tmp_path / "nextscene"
    for room in ("nextscene", *BELOW):
        shutil.copytree(REPOSITORY / room, folder / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".rayignore", "constraints.txt", "pyproject.toml"):
        shutil.copyfile(REPOSITORY / name, folder / name)
    for name in LEFT_HERE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as file:
            file.truncate(BIG)
    create_package(str(folder), tmp_path / "package.zip", include_gitignore=True, logger=logging.getLogger())
    with ZipFile(tmp_path / "package.zip") as package:
        held = {entry.filename: entry.file_size for entry in package.infolist() if not entry.is_dir()}
    assert {
        "nextscene/__init__.py",
        "nextscene/shards/__init__.py",
        "pipelines/build_nsp.py",
        "common/ray_cluster/cluster.py",
        "constraints.txt",
        "prompts/__init__.py",
    } <= set(held)
    assert sorted(set(held) & set(LEFT_HERE)) == []
    assert sum(held.values()) < BIG
