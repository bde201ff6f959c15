"""Wrong usage: exit code 2, one line on stderr that names the thing, and nothing made or changed in OUT."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from nextscene.curation.config import BuildConfig
from nextscene.pipelines.build_nsp import main
from tests.foreign import tree
from tests.support import REPOSITORY, SMALL, assert_conserved, build_inline, captioned_spans, write_csv

pytestmark = pytest.mark.slow

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"
FLAGS = ("--judge", "none", "--test", "0", "--unit-size", "2", "--units-per-shard", "2")


def run(*arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, in this process; it must end by itself, not by an exception."""
    result = CliRunner(env=env).invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr


def error_line(code: int, stdout: str, stderr: str, *words: str) -> str:
    """The one line of the error, checked for its form."""
    assert code == 2, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.strip()]
    # What click itself refuses is told below two lines on how the command is used.
    lines = [line for line in lines if not line.startswith(("Usage: ", "Try "))]
    assert len(lines) == 1 and lines[0].lower().startswith("error: "), stderr
    assert all(word in lines[0] for word in words), lines[0]
    return lines[0]


def refused(out: Path, *arguments: str, words: tuple[str, ...], env: Mapping[str, str] | None = None) -> str:
    before = tree(out)
    line = error_line(*run(*arguments, "--out", str(out), env=env), *words)
    assert tree(out) == before
    return line


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data" / "out"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest of three spans, and the dataset made of it."""
    folder = tmp_path_factory.mktemp("built")
    manifest = captioned_spans(folder, 3)
    build_inline(manifest, folder / "out", SMALL)
    assert_conserved(folder / "out")
    return manifest, folder / "out"


# ---- the source ------------------------------------------------------------------------------------------------


def test_no_source_is_told(out: Path) -> None:
    refused(out, words=("--source is missing",))


def test_no_out_is_told() -> None:
    error_line(*run("--source", "x"), "--out")


@pytest.mark.parametrize("path", ["nowhere", "nowhere/clips.csv", "clips.csv/deeper"])
def test_a_source_that_is_not_there_is_named(tmp_path: Path, out: Path, path: str) -> None:
    (tmp_path / "clips.csv").write_text("video\n")
    refused(out, "--source", str(tmp_path / path), words=("--source", str(tmp_path / path), "no such file or folder"))


def test_the_home_of_nobody_is_named(out: Path) -> None:
    refused(out, "--source", "~no-such-user/x", words=("--source ~no-such-user/x",))
    error_line(*run("--source", ".", "--out", "~no-such-user/x"), "--out ~no-such-user/x")


@pytest.mark.parametrize("files", [(), ("notes.doc", ".hidden.mp4", "a.txt")])
def test_a_folder_without_videos_is_named(tmp_path: Path, out: Path, files: tuple[str, ...]) -> None:
    (tmp_path / "in").mkdir()
    for name in files:
        (tmp_path / "in" / name).write_text("x")
    others = ("1 .doc, 1 .txt, 1 hidden",) if files else ()
    refused(out, "--source", str(tmp_path / "in"), words=(str(tmp_path / "in"), "no videos or images", *others))


def test_a_file_of_no_known_kind_is_named_with_the_kinds(tmp_path: Path, out: Path) -> None:
    (tmp_path / "clips.xlsx").write_text("x")
    refused(out, "--source", str(tmp_path / "clips.xlsx"), words=("clips.xlsx", ".csv", ".jsonl", ".parquet"))


HEADER = "video,caption,start,end\n"
MANIFESTS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "no video.csv": (b"film,caption\na.mp4,x\n", ("no column `video`", "film")),
    "nearly video.csv": (b"vidoe,caption\na.mp4,x\n", ("no column `video`", "is 'vidoe' meant")),
    "end before start.csv": (f"{HEADER}a.mp4,x,5,3\n".encode(), ("line 2", "end 3.0 s", "start 5.0 s")),
    "start no number.csv": (f"{HEADER}a.mp4,x,soon,\n".encode(), ("line 2", "start 'soon'", "number of seconds")),
    "no rows.csv": (HEADER.encode(), ("no videos or images",)),
    "not utf-8.csv": (HEADER.encode() + b"\xff.mp4,x,,\n", ("UTF-8",)),
    "open quote.csv": (HEADER.encode() + b'a.mp4,"x\n\n\n', ("CSV",)),
    "broken.jsonl": (b'{"video": "a.mp4", "caption": "x"}\n{"video"\n', ("line 2", "not JSON")),
    "array.jsonl": (b'[{"video": "a.mp4"}]\n', ("line 1", "not a JSON object")),
    "broken.parquet": (b"PAR1 and so on", ("Parquet",)),
    "broken inside.parquet": (b"PAR1" + b"\xff" * 200 + (50).to_bytes(4, "little") + b"PAR1", ("Parquet",)),
    "twice.csv": (f"{HEADER}a.mp4,x,1,2\nb.mp4,x,,\na.mp4,y,1,2\n".encode(), ("number 1", "number 3", "a.mp4")),
    "ids twice.csv": (b"video,caption,id\na.mp4,x,7\nb.mp4,x,7\n", ("number 1 (7)", "number 2 (7)")),
    "lines in a name.jsonl": (b'{"video": "a\\nb.mp4", "caption": "x"}\n' * 2, ("number 1", "number 2")),
    "elsewhere.csv": (b"video,caption\na.mp4,x\nnonsense://x/a.mp4,x\n", ("number 2", "nonsense://x")),
    "broken.tar": (b"no tar" * 1000, ("tar",)),
}


@pytest.mark.parametrize("name", sorted(MANIFESTS))
def test_a_bad_manifest_is_named_with_the_place_in_it(tmp_path: Path, out: Path, name: str) -> None:
    data, words = MANIFESTS[name]
    (tmp_path / name).write_bytes(data)
    for video in ("a.mp4", "b.mp4", "a\nb.mp4"):
        (tmp_path / video).touch()
    refused(out, "--source", str(tmp_path / name), "--judge", "none", words=(str(tmp_path / name), *words))
    assert not out.parent.exists()


def test_a_parquet_manifest_cut_short_is_named(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "clips.parquet"
    pq.write_table(pa.table({"video": ["a.mp4"] * 500, "caption": [f"caption {i}" for i in range(500)]}), path)
    path.write_bytes(path.read_bytes()[:-50])
    refused(out, "--source", str(path), words=(str(path), "Parquet"))


@pytest.mark.parametrize("judge", ["film", "none"])
def test_a_source_without_captions_is_told_what_its_judge_needs(tmp_path: Path, out: Path, judge: str) -> None:
    (tmp_path / "a.mp4").touch()
    manifest = write_csv(tmp_path / "clips.csv", [{"video": "a.mp4"}, {"video": "b.mp4"}])
    refused(out, "--source", str(manifest), "--judge", judge, words=(str(manifest), "caption", f"--judge {judge}"))


def test_under_film_shots_out_of_order_are_named(tmp_path: Path, out: Path) -> None:
    rows = [{"video": "a.mp4", "caption": "x", "start": start} for start in (0, 5, 3)]
    manifest = write_csv(tmp_path / "clips.csv", rows)
    refused(out, "--source", str(manifest), "--judge", "film", words=("a.mp4", "3.0 s", "sort"))


# ---- OUT -------------------------------------------------------------------------------------------------------


def test_an_out_that_is_a_file_is_named(tmp_path: Path) -> None:
    source = captioned_spans(tmp_path, 1)
    (tmp_path / "out").write_text("mine")
    refused(tmp_path / "out", "--source", str(source), words=("--out", str(tmp_path / "out"), "is a file"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--judge", "film"), ("judge is film, was none",)),
        (("--unit-size", "3"), ("unit_size is 3, was 2",)),
        (("--encode.crf", "20", "--test", "0.5"), ("encode.crf is 20, was 18", "test is 0.5, was 0.0")),
        (("--rules.min-width", "100"), ("rules.min_width is 100, was 832",)),
    ],
)
def test_an_out_of_other_settings_is_refused_with_each_that_differs(
    built: tuple[Path, Path], flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    source, out = built
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in out.rglob("*") if path.is_file()}
    error_line(*run("--source", str(source), "--out", str(out), *FLAGS, *flags), "holds another plan", *words)
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in out.rglob("*") if path.is_file()} == before


def test_an_out_of_another_source_is_refused_with_both(built: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_csv(tmp_path / "other.csv", [{"video": "a.mp4", "caption": "x"}])
    words = (f"was made of {built[0]}, and {other} is another source", "1 clip new (a.mp4)", "Give the same source")
    error_line(*run("--source", str(other), "--out", str(built[1]), *FLAGS), *words)


def test_limits_protect_and_do_not_decide_so_they_may_differ(built: tuple[Path, Path]) -> None:
    code, stdout, _ = run("--source", str(built[0]), "--out", str(built[1]), *FLAGS, "--limits.clip-seconds", "7")
    assert (code, "Nothing to do" in stdout) == (0, True)


@pytest.mark.parametrize("asking", ["--verify", "--status"])
def test_there_is_nothing_to_look_at_without_a_plan(tmp_path: Path, out: Path, asking: str) -> None:
    refused(out, asking, words=("--out", str(out), "holds no dataset"))
    refused(tmp_path, asking, words=(str(tmp_path), "holds no dataset"))
    (tmp_path / "manifest.json").write_text("{}")
    refused(tmp_path, asking, words=("without its config.toml; run the build again", "--ignore-missing SHA256SUMS"))


@pytest.mark.parametrize("asking", ["--verify", "--status"])
@pytest.mark.parametrize("data", [b"", b"x = ", b"\xff", b"x = 1\n", b"determining = 1\n"])
def test_a_config_that_cannot_be_read_is_named(out: Path, asking: str, data: bytes) -> None:
    out.mkdir(parents=True)
    (out / "config.toml").write_bytes(data)
    refused(out, asking, words=(f"{out}/config.toml",))


# ---- flags -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--sorce", "x"), ("--sorce", "--source")),
        (("--unit-sise", "3"), ("--unit-sise", "--unit-size")),
        (("--judge", "clade"), ("--judge", "clade", "film")),
        (("--unit-size", "many"), ("--unit-size", "many")),
        (("--unit-size", "0"), ("error: --unit-size must be above 0, not 0",)),
        (("--test", "1.5"), ("error: --test must lie between 0 and 1, not 1.5",)),
        (("--workers", "0"), ("--workers", "0")),
        (("--encode.width", "831"), ("error: --encode.width must be even, not 831",)),
        (("--retry", "kept"), ("--retry kept", "failed, quarantined")),
        (("--retry", "failed,fialed"), ("--retry fialed", "failed, quarantined")),
        (("--config", "nowhere.toml"), ("--config", "nowhere.toml")),
        (("stray",), ("stray",)),
    ],
)
def test_a_wrong_flag_is_named_with_what_would_be_right(
    tmp_path: Path, out: Path, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(out, "--source", str(captioned_spans(tmp_path, 1)), *flags, words=words)


def test_a_wrong_setting_in_a_file_is_named_with_the_file(tmp_path: Path, out: Path) -> None:
    (tmp_path / "my.toml").write_text("unitsize = 3\n")
    flags = ("--source", str(captioned_spans(tmp_path, 1)), "--config", str(tmp_path / "my.toml"))
    refused(out, *flags, words=("my.toml", "'unitsize'", "'unit_size' meant"))


# ---- places ----------------------------------------------------------------------------------------------------

JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}


@pytest.mark.parametrize(
    ("source", "out", "named"),
    [("in", "/out", "--source in"), ("./in", "s3://bucket/x", "--source ./in"), ("/in", "out", "--out out")],
)
def test_inside_a_cluster_job_relative_paths_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, out: str, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    error_line(*run("--source", source, "--out", out, env=JOB), named, "relative", "s3://")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_inside_a_cluster_job_an_absolute_path_is_looked_at(tmp_path: Path, out: Path) -> None:
    refused(out, "--source", str(tmp_path / "nowhere"), words=("no such file or folder",), env=JOB)


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIAEXAMPLE:{SECRET}@bucket/prefix",
        f"s3://AKIAEXAMPLE:{SECRET}/tail@bucket/prefix",
        f"gs://user:{SECRET}@bucket",
        f"s3://bucket/prefix?secret_key={SECRET}",
        f"nonsense://bucket/prefix?secret_key={SECRET}",
    ],
)
def test_a_credential_in_a_uri_is_never_repeated(tmp_path: Path, out: Path, uri: str) -> None:
    line = refused(out, "--source", uri, words=("--source",))
    other = error_line(*run("--source", str(tmp_path), "--out", uri), "--out")
    for said in (line, other):
        assert SECRET not in said and "tail" not in said


@pytest.mark.parametrize("uri", ["s3://", "s3:///", "://", "http://host/x"])
def test_a_uri_without_a_location_is_refused_and_no_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    source = captioned_spans(tmp_path / "in", 1)
    monkeypatch.chdir(tmp_path)
    error_line(*run("--source", str(source), "--out", uri), "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


# ---- ffmpeg ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """What IMAGEIO_FFMPEG_EXE may point at."""

    script: str | None
    words: tuple[str, ...]


PROGRAMS = {
    "hangs": Program("echo $$ > {folder}/pid; exec sleep 600", ("does not tell its version", "timed out")),
    "fails": Program("exit 1", ("does not tell its version", "exit status 1")),
    "says nothing": Program("exit 0", ("does not tell its version",)),
    "lacks libx264": Program(
        "echo ffmpeg version 7.1 Copyright; echo configuration: --enable-gpl", ("without libx264",)
    ),
    "is no text": Program("printf '\\377\\376'", ("ffmpeg",)),
    "says little": Program("echo --enable-libx264", ("ffmpeg",)),
    "is missing": Program(None, ("No such file",)),
}


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_program_that_is_no_ffmpeg_is_named(tmp_path: Path, out: Path, name: str) -> None:
    """In a process of its own, because which ffmpeg is used is found out once a process. Patience is shortened."""
    program = tmp_path / "my-ffmpeg"
    if (script := PROGRAMS[name].script) is not None:
        program.write_text(f"#!/bin/sh\n{script.replace('{folder}', str(tmp_path))}\n")
        program.chmod(0o755)
    source = write_csv(tmp_path / "clips.csv", [{"video": "a.mp4", "caption": "x"}])
    code = "from nextscene.common import ffmpeg; ffmpeg._ANSWER_SECONDS = 1\n"
    code += "from nextscene.pipelines.build_nsp import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--source", str(source), "--out", str(out)],
        cwd=REPOSITORY,
        env={**os.environ, "IMAGEIO_FFMPEG_EXE": str(program)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    error_line(done.returncode, done.stdout, done.stderr, str(program), *PROGRAMS[name].words)
    assert not out.exists()
    if (tmp_path / "pid").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), signal.SIG_DFL)


# ---- a dataset that was damaged --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["ledger/train/000/nsp-000000.parquet", "shards/train/000/nsp-000000.receipt.json"])
@pytest.mark.parametrize("data", [b"", b"damaged" * 100, None])
@pytest.mark.parametrize("how", ["--verify", "--status"])
def test_a_damaged_dataset_is_told_in_a_line_and_not_by_a_traceback(
    tmp_path: Path, path: str, data: bytes | None, how: str
) -> None:
    (tmp_path / "empty.mp4").touch()
    source = write_csv(tmp_path / "clips.csv", [{"video": "empty.mp4", "caption": "x"}])
    build_inline(source, tmp_path / "out", SMALL)
    if data is None and path.endswith(".json"):
        return  # a shard without a receipt is not damaged: it is not done
    (tmp_path / "out" / path).unlink() if data is None else (tmp_path / "out" / path).write_bytes(data)
    code, stdout, stderr = run(how, "--out", str(tmp_path / "out"))
    if how == "--status" and path.endswith(".json"):
        return  # it counts by the ledgers and needs no receipt
    assert code == 1 and "Traceback" not in stderr
    assert path in (stdout if how == "--verify" else stderr)


def test_the_defaults_of_the_command_are_those_of_the_configuration(out: Path, tmp_path: Path) -> None:
    source = captioned_spans(tmp_path, 2)
    build_inline(source, out, replace(BuildConfig(), limits=BuildConfig().limits))
    assert_conserved(out, BuildConfig())
    code, stdout, _ = run("--source", str(source), "--out", str(out))
    assert (code, "Nothing to do" in stdout) == (0, True)


def test_help_is_no_mistake() -> None:
    code, stdout, stderr = run("--help")
    assert (code, stderr) == (0, "") and all(word in stdout for word in ("--source", "--retry", "Exit codes"))
