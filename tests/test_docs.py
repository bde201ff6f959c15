"""The documents: each path, module and link in them exists, and each flag belongs to a command."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from nextscene.pipelines.cli.main import SUBCOMMANDS
from tests.support import REPOSITORY
from tests.test_imports import BELOW

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / ".github").rglob("*.md")])
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""All pages except the changelog, which also names removed things."""

ROOMS = "common|prompts|judge|shards|curation|training|evaluation|pipelines|nextscene|samples|tests|benchmarks|docs"
OTHERS_FLAGS = {
    "--address",  # ray start
    "--check",  # ruff
    "--control",  # python -m tests.toy_world
    "--gpus-per-node",  # sbatch
    "--head",  # ray start
    "--ignore-missing",  # sha256sum
    "--include",  # hf download
    "--logdir",  # tensorboard
    "--max-restarts",  # torchrun
    "--nnodes",
    "--nodes",  # sbatch
    "--nproc-per-node",
    "--ntasks-per-node",  # sbatch, srun
    "--precision",  # benchmarks.gpu
    "--rdzv-backend",
    "--rdzv-endpoint",
    "--rdzv-id",
    "--requeue",  # sbatch
    "--revision",  # hf download
    "--rounds",  # benchmarks
    "--shutdown-timeout",
    "--signal",  # sbatch
    "--signals-to-handle",
    "--strict",  # mypy
    "--toy",  # benchmarks.gpu
    "--working-dir",  # ray job submit
}
WIDTH = 120


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def without_python(page: Path) -> str:
    """Return a page without its programs, which may name files that a reader will add."""
    return re.sub(r"^```python$.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", text_of(REPOSITORY / "Makefile"), re.MULTILINE))


def ids(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(REPOSITORY)) for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_each_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("page", CURRENT, ids=ids(CURRENT))
def test_each_path_is_in_the_tree(page: Path) -> None:
    named = set(re.findall(rf"(?<![\w/.:-])(?:{ROOMS})/[\w./-]*\w", without_python(page)))
    others = {path for path in named if path.startswith("shards/train") or path == "samples/s"}  # in OUT; a unit
    assert sorted(path for path in named - others if not (REPOSITORY / path).exists()) == []


@pytest.mark.parametrize("page", CURRENT, ids=ids(CURRENT))
def test_each_module_is_in_the_tree(page: Path) -> None:
    """The names are of the forms `room.module.name`, with or without `nextscene.`, and `python -m module`."""
    lost = []
    for name in re.findall(rf"(?<![\w/.-])(?:nextscene\.)?((?:{ROOMS})(?:\.\w+)+)", without_python(page)):
        if name.endswith((".json", ".md", ".txt")):
            continue
        parts = name.split(".")
        modules = [REPOSITORY.joinpath(*parts[:count]) for count in range(2, len(parts) + 1)]
        if not any(path.is_dir() or path.with_suffix(".py").is_file() for path in modules):
            lost.append(name)
    assert lost == []


@pytest.mark.parametrize("page", CURRENT, ids=ids(CURRENT))
def test_each_flag_is_one_of_a_command(page: Path) -> None:
    commands = [one.load() for one in SUBCOMMANDS.values()]
    known = {"--help"} | {
        flag
        for command in commands
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*[a-z]", text_of(page)))
    assert sorted(named - known - OTHERS_FLAGS) == []


@pytest.mark.parametrize("page", CURRENT, ids=ids(CURRENT))
def test_each_command_exists(page: Path) -> None:
    blocks = "".join(re.findall(r"^```$.*?^```$", text_of(page), re.DOTALL | re.MULTILINE))
    for command, known in (("nextscene", set(SUBCOMMANDS)), ("make", make_targets())):
        named = re.findall(rf"^{command} ([a-z][\w-]*)", blocks, re.MULTILINE)
        named += re.findall(rf"`{command} ([a-z][\w-]*)", prose(page))
        assert set(named) <= known


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_lines_of_prose_fit(page: Path) -> None:
    lines = prose(page).splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith(("|", "    "))] == []


def test_each_name_in_the_architecture_is_in_the_sources() -> None:
    """The names are those of classes, functions, settings and columns, in code blocks or quoted as code."""
    page = text_of(REPOSITORY / "docs" / "architecture.md")
    blocks = re.findall(r"^```$(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    quoted = re.findall(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)`", prose(REPOSITORY / "docs" / "architecture.md"))
    named = {word for block in blocks for word in re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b", block)}
    named |= {part for name in quoted for part in name.split(".")}
    source = "\n".join(path.read_text() for room in BELOW for path in (REPOSITORY / room).rglob("*.py"))
    words = set(re.findall(r"\w+", source))
    assert sorted(name for name in named - words if not name.startswith("__")) == []
