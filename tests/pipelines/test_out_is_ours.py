"""Every command that writes: a folder that is not ours is refused in a line, and nothing in it was touched."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from nextscene.pipelines import fetch_film
from nextscene.shards.format.layout import MARK
from tests.command import SMALL_FLAGS
from tests.foreign import FOREIGN, lay, marked, tree
from tests.support import SMALL, assert_conserved, build_inline, captioned_spans, write_csv

pytestmark = pytest.mark.slow

COMMANDS: dict[str, list[str]] = {
    "build_nsp": ["--source", "{in}/clips.csv"],
    "build_nsp --retry": ["--source", "{in}/clips.csv", "--retry", "failed"],
    "train": ["--stage", "connector", "--recipe", "tiny", "--data", "{in}", "--qwen", "{in}/qwen", "--ltx", "{in}/ltx"],
    "train --resume": [
        "--stage",
        "rl",
        "--recipe",
        "tiny",
        "--data",
        "{in}",
        "--qwen",
        "{in}/q",
        "--ltx",
        "{in}/l",
        "--resume",
    ],
    "generate": ["--run", "{in}", "--scene", "A scene."],
    "evaluate": ["--model", "a={in}", "--scenes", "{in}/clips.csv"],
    "evaluate --vbench": ["--model", "a={in}", "--vbench", "{in}/clips.csv"],
    "make_tiny": ["--data", "{in}"],
    "encode_latents": ["--data", "{in}", "--ltx", "{in}"],
}
KINDS = {"build_nsp": "dataset", "train": "run", "generate": "videos", "make_tiny": "toys", "encode_latents": "latents"}


def refused(command: str, out: object, given: Path) -> str:
    """As `error`, of --out."""
    line = error(command, out, given)
    assert "--out" in line or (command == "encode_latents" and "--latents" in line)
    return line


def error(command: str, out: object, given: Path) -> str:
    """The one line of the error of a command that was given `out`."""
    flags = [flag.replace("{in}", str(given)) for flag in COMMANDS[command]]
    main = importlib.import_module(f"nextscene.pipelines.{command.split()[0]}").main
    result = CliRunner().invoke(main, [*flags, "--out", str(out)])
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith(("Usage: ", "Try "))]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """What the commands are to work with; they must not come so far."""
    write_csv(tmp_path / "in" / "clips.csv", [{"video": "a.mp4", "caption": "x"}])
    return tmp_path / "in"


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_others_is_refused_and_stays_as_it_is(tmp_path: Path, given: Path, command: str, name: str) -> None:
    before = tree(lay(tmp_path / "out", name))
    assert str(tmp_path / "out") in refused(command, tmp_path / "out", given)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("command", COMMANDS)
def test_so_it_is_however_it_is_named(
    tmp_path: Path, given: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an empty variable, as the folder that one is in, as home, through a link; and the root of all."""
    out = lay(tmp_path / "out", "notes")
    (tmp_path / "link").symlink_to(out)
    monkeypatch.setenv("HOME", str(out))
    monkeypatch.chdir(out)
    before = tree(out)
    for name in ("", " ", ".", "./", "../out", "~", tmp_path / "link", tmp_path / "in" / ".." / "out"):
        refused(command, name, given)
    refused(command, "/", given)
    assert tree(out) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_another_kind_is_refused(tmp_path: Path, given: Path, command: str) -> None:
    for kind in ("dataset", "latents", "run", "videos", "evaluation", "toys", "shapes"):
        if kind != KINDS.get(command.split()[0], "evaluation"):
            before = tree(marked(tmp_path / kind, kind))
            assert "holds" in refused(command, tmp_path / kind, given)
            assert tree(tmp_path / kind) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_no_folder_can_be_below_a_file(tmp_path: Path, given: Path, command: str) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(command, tmp_path / "file", given)
    assert "lies below a file" in refused(command, tmp_path / "file" / "x", given)


@pytest.mark.parametrize("command", ["train", "evaluate", "make_tiny", "encode_latents"])
def test_nothing_is_written_into_the_data(
    tmp_path: Path, given: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "evaluate", [*COMMANDS["evaluate"][:2], "--data", "{in}"])
    (tmp_path / "link").symlink_to(given)
    before = tree(given)
    for out in (given, given / "new", tmp_path / "link" / "new", tmp_path / "out" / ".." / "in"):
        assert "lies inside --data" in refused(command, out, given)
    assert tree(given) == before


@pytest.mark.parametrize("command", ["build_nsp", "train", "evaluate", "make_tiny", "encode_latents"])
def test_an_empty_source_or_dataset_is_not_the_folder_that_one_is_in(
    tmp_path: Path, given: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(given)
    flag = "--source" if command == "build_nsp" else "--data"
    flags = COMMANDS[command] if flag in COMMANDS[command] else [*COMMANDS[command][:2], flag, "{in}"]
    monkeypatch.setitem(COMMANDS, command, ["" if before == flag else now for before, now in pairwise(["", *flags])])
    assert f"{flag} '' is empty" in error(command, tmp_path / "out", given)
    assert not (tmp_path / "out").exists()


# ---- build_nsp and report ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest of three spans, and the dataset made of it, which must not be changed."""
    folder = tmp_path_factory.mktemp("made")
    manifest = captioned_spans(folder, 3)
    build_inline(manifest, folder / "out", SMALL)
    return manifest, folder / "out"


@pytest.fixture
def built(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The manifest, and a copy of the dataset."""
    return made[0], Path(shutil.copytree(made[1], tmp_path / "out"))


def again(source: object, out: object, *flags: str) -> tuple[int, str]:
    from nextscene.pipelines.build_nsp import main

    result = CliRunner().invoke(main, ["--source", str(source), "--out", str(out), *SMALL_FLAGS, *flags])
    return result.exit_code, result.output


def test_a_dataset_of_an_older_version_goes_on_and_gets_the_mark(built: tuple[Path, Path]) -> None:
    source, out = built
    (out / MARK).unlink()
    before = tree(out)
    code, told = again(source, out, "--unit-size", "3")
    assert (code, "holds another plan" in told) == (2, True)
    assert {path: tree(out)[path][2] for path in before} == {path: before[path][2] for path in before}
    assert not (out / MARK).exists()
    assert again(source, out)[0] == 0 and (out / MARK).exists()
    assert_conserved(out)


def test_a_run_deletes_and_replaces_only_what_runs_wrote(built: tuple[Path, Path]) -> None:
    source, out = built
    theirs = [
        "notes.txt",
        ".notes.unfinished",
        "index/val.parquet",
        "index/notes.txt",
        "wids-mine.json",
        ".nv-meta/mine.yaml",
        "mine/.plan.parquet.0123abcd.unfinished",
        "latents/mine/parts/.a.0123abcd.unfinished",
        "shards/train/000/nsp-000000-r9.notes.txt",
        "ledger/train/000/nsp-000000-r9.csv",
        "parts/train-00000000.txt",
        "parts/mine-00000000.part.bak",
        "ledger/units/copy/train-00000000.parquet",
    ]
    for path in theirs:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text("mine")
    before = {path: (out / path).stat().st_mtime_ns for path in theirs}
    (out / "manifest.json").unlink()  # the run has something to do
    (out / ".config.toml.0123abcd.unfinished").write_text("half")
    assert again(source, out, "--retry", "failed")[0] == 0
    assert {path: (out / path).stat().st_mtime_ns for path in theirs} == before
    assert not (out / ".config.toml.0123abcd.unfinished").exists() and (out / "manifest.json").exists()


def test_a_mistake_leaves_no_trace_of_a_new_out(tmp_path: Path) -> None:
    manifest = write_csv(tmp_path / "clips.csv", [{"film": "a.mp4"}])
    (tmp_path / "mount" / "lost+found").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    before = {path.name for path in tmp_path.rglob("*")}
    for out in ("new/deep/out", "empty", "mount", "./empty/../new"):
        code, told = again(manifest, tmp_path / out)
        assert (code, "no column `video`" in told) == (2, True)
    assert {path.name for path in tmp_path.rglob("*")} == before


def _manifest(folder: Path) -> Path:
    return write_csv(folder / "clips.csv", [{"film": "a.mp4"}])


def _link(name: Path, to: Path) -> Path:
    name.symlink_to(to)
    return name


SOURCES: dict[str, Callable[[Path], tuple[object, object]]] = {
    "the same": lambda at: (at, at),
    "the same by a link": lambda at: (at, _link(at.parent / "link", at)),
    "the same, source by a link": lambda at: (_link(at.parent / "link", at), at),
    "the same by ..": lambda at: (at, at / "x" / ".."),
    "the same with a slash": lambda at: (f"{at}/", at),
    "the same as a URI": lambda at: (at, f"file://{at}"),
    "out inside": lambda at: (at, at / "out"),
    "out inside by a link": lambda at: (at, _link(at.parent / "link", at) / "out"),
    "out inside by ..": lambda at: (at, at.parent / "x" / ".." / at.name / "out"),
    "a manifest in out": lambda at: (_manifest(at), at),
    "a manifest deep in out": lambda at: (_manifest(at / "lists"), at),
    "a link to a manifest in out": lambda at: (_link(at.parent / "clips.csv", _manifest(at)), at),
    "a folder in out": lambda at: (at / "in", at),
    "a folder in out by a link": lambda at: (_link(at.parent / "link", at / "in"), at),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source_and_out_lie_apart(tmp_path: Path, name: str) -> None:
    """Though OUT is ours: marked, and nothing else in the way."""
    (tmp_path / "at" / "in").mkdir(parents=True)
    (tmp_path / "at" / "in" / "a.mp4").write_text("x")
    source, out = SOURCES[name](tmp_path / "at")
    marked(Path(str(out).removeprefix("file://")).resolve(), "dataset")
    before = tree(tmp_path)
    code, told = again(source, out)
    assert code == 2 and "lies inside" in told and told.count("\n") == 1, told
    assert tree(tmp_path) == before


@pytest.mark.parametrize("out", ["out", "deep/out", "../clips", "../clips.csv-out"])
def test_out_may_lie_beside_a_manifest_or_in_its_folder(tmp_path: Path, out: str) -> None:
    code, told = again(_manifest(tmp_path / "lists"), tmp_path / "lists" / out)
    assert (code, "no column `video`" in told) == (2, True)


def test_a_link_to_out_inside_the_source_is_told(built: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "made").symlink_to(built[1])
    (tmp_path / "in" / "a.mp4").write_text("x")
    (built[1] / "config.toml").unlink()  # so that the source is read
    before = tree(built[1])
    code, told = again(tmp_path / "in", built[1])
    assert code == 2 and "made" in told and "--out" in told
    assert tree(built[1])[str(built[1] / "plan.parquet")] == before[str(built[1] / "plan.parquet")]


@pytest.fixture
def report() -> Iterator[Callable[[Path], tuple[int, str]]]:
    from nextscene.pipelines.report import main

    def run(out: Path) -> tuple[int, str]:
        result = CliRunner().invoke(main, [str(out)])
        return result.exit_code, result.output

    yield run


def test_the_page_is_written_into_datasets_alone(
    tmp_path: Path, built: tuple[Path, Path], report: Callable[[Path], tuple[int, str]]
) -> None:
    for name in FOREIGN:
        before = tree(lay(tmp_path / name, name))
        code, told = report(tmp_path / name)
        assert code == 2 and told.count("\n") == 1, told
        assert tree(tmp_path / name) == before
    assert "no 'determining'" in report(tmp_path / "settings")[1]
    (built[1] / MARK).write_text('{"kind": "run", "version": 1}')
    before = tree(built[1])
    assert report(built[1])[0] == 2 and tree(built[1]) == before


@pytest.mark.parametrize("damage", ["a tar", "a byte of a tar"])
def test_the_page_of_a_damaged_dataset_is_written_and_the_damage_told(
    built: tuple[Path, Path], report: Callable[[Path], tuple[int, str]], damage: str
) -> None:
    tar = built[1] / "shards" / "train" / "000" / "nsp-000000.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 4] ^= 1
    tar.unlink() if damage == "a tar" else tar.write_bytes(data)
    code, told = report(built[1])
    assert code == 1 and "is damaged" in told and "--verify" in told, told
    assert (built[1] / "report.html").exists()


# ---- fetch_film ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shots.csv", "big_buck_bunny.mp4"])
def test_a_film_or_list_of_others_is_not_replaced(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_film, "_download", None)
    (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    result = CliRunner().invoke(fetch_film.main, [str(tmp_path)])
    assert result.exit_code == 2 and f"{tmp_path / name} is there already" in result.stderr
    assert tree(tmp_path) == before


def test_the_film_goes_into_a_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fetch_film, "_download", None)
    (tmp_path / "file").write_text("mine")
    before = tree(tmp_path)
    for folder in ("", "file", "file/x", "/proc/x"):
        result = CliRunner().invoke(fetch_film.main, [folder])
        assert result.exit_code == 2 and "Traceback" not in result.output
    assert tree(tmp_path) == before
