"""The command `nextscene`: the scripts' commands under one name, each flag explained, loaded when it is called."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from nextscene.common.config_loader import leaves
from nextscene.curation.config import BuildConfig
from nextscene.pipelines.cli.main import SUBCOMMANDS, main
from nextscene.training.generation.base import Sampling
from nextscene.training.recipe import Recipe
from tests.pipelines.cli.test_stop_signals import CODES
from tests.support import REPOSITORY, captioned_spans, make_video, problems, write_csv

SCRIPTS = {
    "build": "build_nsp",
    "show": "show",
    "report": "report",
    "encode": "encode_latents",
    "train": "train",
    "generate": "generate",
    "evaluate": "evaluate",
    "make-shapes": "make_shapes",
    "make-tiny": "make_tiny",
    "fetch-film": "fetch_film",
}
MODES = {"status", "verify", "retry", "estimate"}
SETTINGS = {"build": BuildConfig, "retry": BuildConfig, "estimate": BuildConfig, "train": Recipe, "generate": Sampling}


def nextscene(*arguments: object) -> Result:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def options(command: click.Command) -> Iterator[click.Option]:
    """Those that are shown."""
    yield from (one for one in command.params if isinstance(one, click.Option) and not one.hidden)


def test_the_subcommands_are_the_scripts_and_their_modes() -> None:
    scripts = {path.stem for path in (REPOSITORY / "pipelines").glob("*.py")} - {"__init__"}
    assert set(SCRIPTS.values()) == scripts
    assert set(SUBCOMMANDS) == set(SCRIPTS) | MODES | {"completion"}


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_begins_with_the_sentence_of_the_overview(name: str) -> None:
    ended = nextscene(name, "--help")
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"Usage: main {name} ")
    assert ended.stdout.split("\n\n")[1].strip() == SUBCOMMANDS[name].sentence
    assert "Exit codes" in ended.stdout
    assert SUBCOMMANDS[name].sentence in " ".join(nextscene("--help").stdout.split())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_subcommand_has_the_options_of_the_script(name: str) -> None:
    assert SUBCOMMANDS[name].load() is import_module(f"nextscene.pipelines.{SCRIPTS[name]}").main


@pytest.mark.parametrize("name", sorted(MODES))
def test_a_mode_has_no_options_but_those_of_build(name: str) -> None:
    known = {one.name: one for one in options(SUBCOMMANDS["build"].load())}
    assert all(known[one.name] is one for one in options(SUBCOMMANDS[name].load()))


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_option_has_a_sentence_and_shows_the_default_of_its_field(name: str) -> None:
    command = SUBCOMMANDS[name].load()
    sentences = {one.opts[0]: (one.help or "").partition("  [")[0] for one in options(command)}
    assert [flag for flag, sentence in sentences.items() if not sentence.endswith((".", "…"))] == []
    settings = {one.name.replace(".", "__"): one for one in leaves(SETTINGS[name])} if name in SETTINGS else {}
    for option in options(command):
        if option.name in settings and option.name != "stage":  # which chooses the recipe
            assert option.help and option.help.startswith(settings[option.name].help)
            assert "default: " in option.help, option.name


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["biuld"], "biuld: no such command; is build meant?"),
        (["make_tiny"], "make_tiny: no such command; is make-tiny meant?"),
        (["xyzzy"], "xyzzy: no such command; --help lists them"),
        (["--verbose"], "--verbose: no such flag; --help lists them"),
        (["--halp", "show"], "--halp: no such flag; is --help meant?"),
        (["show", "x", "--jsno"], "--jsno: no such flag; is --json meant?"),
        (["status"], "OUT is missing; --help says what it is"),
        (
            ["retry", "x"],
            "OUTCOMES is missing; name one or more of rejected, dropped, refused, failed, quarantined, absent",
        ),
        (
            ["status", "x", "mf"],
            "mf: it stands behind no flag, and only OUT does; leave it out, and put a value with spaces into quotes",
        ),
        (
            ["build", "vids", "g2"],
            "vids g2: it stands behind no flag; give the source as --source vids, and OUT as --out OUT, and put a value"
            " with spaces into quotes",
        ),
        (["build", "-source", "x"], "-source: no such flag; is --source meant?"),
        (
            ["data/nsp-film"],
            "data/nsp-film: a path where a command should be; name one before it, such as show data/nsp-film",
        ),
        (["verify", ""], "OUT '' is empty; give a value, or leave it out; is a variable not set?"),
        (["completion", "fish"], "SHELL: 'fish' is not one of 'bash', 'zsh'"),
    ],
)
def test_misuse_is_one_line_with_the_nearest_known_name(given: list[str], line: str) -> None:
    ended = nextscene(*given)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (2, "", f"error: {line}\n")


def test_the_version_is_that_of_the_package() -> None:
    assert nextscene("--version").output.split()[-1] == version("nextscene")


def test_without_a_command_the_help_is_shown() -> None:
    ended = nextscene()
    assert ended.exit_code == 2
    assert "Commands:" in ended.output


@pytest.mark.parametrize("given", [("retry", "typo", "failed"), ("build", "--out", "typo", "--retry", "failed")])
def test_a_retry_of_what_was_never_begun_is_refused_and_begins_nothing(
    tmp_path: Path, inline: None, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = captioned_spans(tmp_path / "in", 2)
    ended = nextscene(*given, "--source", source)
    assert ended.exit_code == 2 and not (tmp_path / "typo").exists()
    place = "OUT" if given[0] == "retry" else "--out"
    assert ended.stderr.startswith(f"error: {place} {tmp_path / 'typo'} holds no dataset: it is not there")


def test_a_retry_says_that_the_undecided_clips_come_first(
    tmp_path: Path, inline: None, caplog: pytest.LogCaptureFixture
) -> None:
    source, out = captioned_spans(tmp_path / "in", 3), tmp_path / "out"
    flags = ("--source", source, "--out", out, "--judge", "none", "--test", "0", "--stop-after", "1")
    nextscene("build", *flags)
    nextscene("retry", out, "failed")
    assert "first the 2 clips not decided yet, then the retry" in caplog.text
    caplog.clear()
    nextscene("retry", out, "failed")
    assert "not decided yet" not in caplog.text


def test_a_retry_that_changes_nothing_says_so(tmp_path: Path, inline: None) -> None:
    source, out = captioned_spans(tmp_path / "in", 3, size="64x48"), tmp_path / "out"
    nextscene("build", "--source", source, "--out", out, "--judge", "none", "--test", "0")
    assert "retried   3 clips: 0 with another outcome now" in nextscene("retry", out, "rejected").stdout


def test_a_dataset_is_built_shown_verified_and_retried_by_subcommands(tmp_path: Path, inline: None) -> None:
    videos = [make_video(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    source, out = (
        write_csv(tmp_path / "clips.csv", [{"video": one.name, "caption": "x"} for one in videos]),
        tmp_path / "out",
    )
    videos[1].rename(tmp_path / "away.mp4")
    built = nextscene("build", "--source", source, "--out", out, "--judge", "none", "--test", "0")
    assert built.exit_code == 1, built.stderr
    assert f"next      nextscene retry {out} absent  # " in built.stdout
    assert f"next      nextscene verify {out}\n" in built.stdout
    assert "python" not in built.stdout
    (tmp_path / "away.mp4").rename(videos[1])
    assert "absent no_file 1" in nextscene("status", out).stdout
    retried = nextscene("retry", out, "absent", "refused")
    assert retried.exit_code == 0 and "retried   1 clip: 1 with another outcome now" in retried.stdout
    assert problems(out, BuildConfig(judge="none", test=0.0)) == []
    verified = nextscene("verify", out)
    assert (verified.exit_code, verified.stderr) == (0, "")
    assert f"next      nextscene verify {out}" in nextscene("show", out).stdout


def test_an_unknown_outcome_is_named(tmp_path: Path, inline: None) -> None:
    out = tmp_path / "out"
    assert nextscene("build", "--source", captioned_spans(tmp_path, 1), "--out", out).exit_code == 1
    assert "error: retry lost: not an outcome that can be retried" in nextscene("retry", out, "failed", "lost").stderr


def test_an_estimate_is_the_mode_of_a_build(tmp_path: Path) -> None:
    flags = ["--source", captioned_spans(tmp_path, 2), "--out", tmp_path / "out"]
    assert "error: estimate means nothing with --judge film" in nextscene("estimate", *flags).stderr
    ended = nextscene("estimate", *flags, "--judge", "claude", "--assume", "pass_rate=0.5")
    assert ended.exit_code == 0, ended.stderr
    assert "2 clips to be decided" in ended.stdout
    assert not (tmp_path / "out").exists()


# ---- in a process of its own --------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """What pip makes of `[project.scripts]`."""
    path = tmp_path / "bin" / "nextscene"
    path.parent.mkdir()
    path.write_text("import sys\nfrom nextscene.pipelines.cli.main import main\nsys.exit(main())\n")
    return path


def process(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment
    )


def test_the_console_script_is_installed() -> None:
    assert 'nextscene = "nextscene.pipelines.cli.main:main"' in (REPOSITORY / "pyproject.toml").read_text()


def test_help_and_completion_load_neither_ray_nor_torch_nor_pyarrow() -> None:
    code = (
        "import sys; from nextscene.pipelines.cli.main import main; main(['--help'], standalone_mode=False);"
        " print([name for name in ('ray', 'torch', 'pyarrow', 'numpy') if name in sys.modules])"
    )
    assert process("-c", code).stdout.endswith("\n[]\n")


@pytest.mark.parametrize(
    ("words", "at", "meant"),
    [("nextscene ver", 1, ["plain,verify"]), ("nextscene show x --ex", 3, ["plain,--extract"])],
)
def test_a_shell_completes_commands_and_flags(script: Path, words: str, at: int, meant: list[str]) -> None:
    env = {"_NEXTSCENE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    assert process(script, env=env).stdout.splitlines() == meant


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_script_asks_the_command(script: Path, shell: str) -> None:
    ended = process(script, "completion", shell)
    assert ended.returncode == 0
    assert f"_NEXTSCENE_COMPLETE={shell}_complete" in ended.stdout


def test_a_missing_package_is_named(script: Path) -> None:
    ended = process("-S", script, "show", "x")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {sys.executable} has no package ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_signal_while_packages_are_imported_ends_it_with_a_line(script: Path, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)\n"
    )
    ended = process(script, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"})
    assert (ended.returncode, ended.stderr) == (CODES[15], "error: stopped by SIGTERM; nothing was begun\n")
