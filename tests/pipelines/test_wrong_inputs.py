"""What people mistake around datasets: one line each, and nothing made or changed. See also test_wrong_models.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from nextscene.common.filesystem import BadLocation
from nextscene.common.typed_path import check_typed_path
from tests.foreign import tree
from tests.pipelines.wrong_inputs import Wrong, assert_refused, lay_places, run, wrong
from tests.support import SMALL, build_inline, captioned_spans

BUILD = "build_nsp --out {out} --source {film/clips.csv}"
NONE = "build_nsp --out {out} --judge none --source"
CLAUDE = f"{BUILD} --judge claude"
TOY = "make_tiny --out {out}"

TEXTS: dict[str, bytes] = {
    "utf16.csv": "video,caption\nfilm.mp4,x\n".encode("utf-16"),
    "comma.csv": b'video,caption,start,end\nfilm.mp4,x,"0,5","0,75"\n',
    "semicolon.csv": b"video;caption;start;end\nfilm.mp4;x;0,5;0,75\n",
    "clock.csv": b"video,caption,start\nfilm.mp4,x,00:00:01\n",
    "heading.csv": b"Video,Caption\nfilm.mp4,x\n",
    "windows.csv": b"video,caption\nC:\\clips\\film.mp4,x\n",
    "home.csv": b"video,caption\n~/film.mp4,x\n",
    "variable.csv": b"video,caption\n$DATA/film.mp4,x\n",
    "pretty.jsonl": b'[\n  {"video": "film.mp4", "caption": "x"}\n]\n',
    "line.jsonl": b'[{"video": "film.mp4", "caption": "x"}]\n',
    "clips.json": b'[{"video": "film.mp4"}]',
    "broken.toml": b"unit_size = \n",
    "json.toml": b'{"unit_size": 3}\n',
    "yaml.toml": b"unit_size: 3\n",
    "windows.toml": b'judge = "C:\\new\\users"\n',
    "utf16.toml": "unit_size = 3\n".encode("utf-16"),
    "scalar.toml": b"rules = 3\n",
    "table.toml": b"[unit_size]\nx = 1\n",
    "near.toml": b"[rules]\nminwidth = 3\n",
    "mix.toml": b'stage = "sft"\n[mix]\nname = "nsp"\n',
    "empty.toml": b"",
    "prices.toml": b"model = 3\n",
}

WRONG = [
    # separators and encodings
    wrong(f"{NONE} {{utf16.csv}}", "{utf16.csv}", "it is in UTF-16; save it as CSV UTF-8"),
    wrong(f"{NONE} {{comma.csv}}", "line 2: start '0,5' is not a number of seconds, such as 90.5"),
    wrong(f"{NONE} {{semicolon.csv}}", "line 2: start '0,5' is not a number of seconds"),
    wrong(f"{NONE} {{clock.csv}}", "line 2: start '00:00:01' is not a number of seconds"),
    wrong(f"{NONE} {{heading.csv}}", "no column `video` (it has Video, Caption); is 'Video' meant?"),
    wrong(f"{NONE} {{pretty.jsonl}}", "{pretty.jsonl}, line 1: not JSON", "write one object on each line"),
    wrong(f"{NONE} {{line.jsonl}}", "line 1: not a JSON object; write one object on each line"),
    wrong(f"{NONE} {{clips.json}}", "{clips.json}: not a folder, a video", ".jsonl"),
    # names in a manifest
    wrong(f"{NONE} {{windows.csv}}", "none of the 1 files it names is there", "write / for \\ in names"),
    wrong(f"{NONE} {{home.csv}}", "'~/film.mp4'", "write out what ~ and variables stand for"),
    wrong(f"{NONE} {{variable.csv}}", "'$DATA/film.mp4'", "no shell does it in a manifest"),
    # paths as they are typed and pasted
    wrong(f"{NONE} 'C:\\data\\clips'", "--source C:\\data\\clips is a path of Windows", "/mnt/c/data/clips"),
    wrong(f"{NONE} C:/data/clips", "--source C:/data/clips is a path of Windows"),
    wrong(f"{NONE} 'film\\clips.csv'", "film\\clips.csv is not there, and has \\", "write film/clips.csv"),
    wrong(f"{NONE} '$HOME/film'", "--source $HOME/film: the shell put nothing in for $HOME"),
    wrong(f"{NONE} '%USERPROFILE%/film'", "the shell put nothing in for %USERPROFILE%"),
    wrong(f"{NONE} '\"{{film/clips.csv}}\"'", "has quotes around it that are part of the name; give it without"),
    wrong(f"{NONE} '{{film/clips.csv}} '", "begins or ends with white space; give it without"),
    wrong(f"{NONE} '{{film/clips.csv}}\n'", "begins or ends with white space; give it without"),
    wrong("build_nsp --source {film/clips.csv} --out 'C:\\data\\out'", "--out C:\\data\\out is a path of Windows"),
    wrong("build_nsp --source {film/clips.csv} --out '${DATA}/out'", "the shell put nothing in for ${DATA}"),
    wrong("build_nsp --source {film/clips.csv} --out '“{out}”'", "has quotes around it"),
    wrong("show '{built} '", "OUT '{built} ' begins or ends with white space"),
    wrong("report 'C:\\nsp'", "OUT C:\\nsp is a path of Windows"),
    wrong("fetch_film 'C:\\film'", "FOLDER: C:\\film is a path of Windows"),
    wrong("fetch_film s3://bucket/film", "FOLDER: s3://bucket/film is not a local path"),
    wrong(f"{TOY} --data 'C:\\nsp'", "--data C:\\nsp is a path of Windows"),
    # the wrong folder
    wrong("build_nsp --status --out {run}", "--out {run} holds no dataset, but a training run; name one that a build"),
    wrong("build_nsp --verify --out {latents}", "--out {latents} holds no dataset, but latents"),
    wrong("build_nsp --status --out {run/export}", "holds no dataset, but a trained model"),
    wrong("build_nsp --status --out {built/shards}", "holds no dataset", "is {built} meant?"),
    wrong("build_nsp --status --out {nowhere}", "--out {nowhere} holds no dataset: it is not there"),
    wrong("show {videos}", "{videos} holds no dataset, but generated videos"),
    wrong("show {near}", "{near} holds no dataset", "is {near/set} meant?"),
    wrong("show {built/shards/train}", "is {built} meant?"),
    wrong("report {qwen}", "{qwen} holds no dataset, but a model"),
    wrong("report {built/summary.json}", "is a file"),
    wrong(f"{TOY} --data {{run}}", "--data {run} holds no dataset, but a training run"),
    wrong(f"{TOY} --data {{film/clips.csv}}", "--data {film/clips.csv} is a file; name a folder"),
    wrong("show {built} train/nsp-000000 --extract {built}", "--extract {built} holds a dataset; name another folder"),
    wrong("show {built} train/nsp-000000 --extract {built/new}", "holds the dataset; name another folder"),
    wrong("show {built} train/nsp-000000 --extract {videos}", "--extract {videos} holds generated videos"),
    wrong("show {built} train/nsp-000000 --extract {scenes.txt}", "--extract {scenes.txt} is a file; name a folder"),
    # variables that are not set
    wrong(f"{NONE} ''", "--source '' is empty", "is a variable not set?"),
    wrong(f"{BUILD} --config ''", "--config '' is empty"),
    wrong(f"{CLAUDE} --model ''", "--model '' is empty"),
    wrong(f"{BUILD} --ray-address ' '", "--ray-address ' ' is empty"),
    wrong("show {built} ''", "WHAT '' is empty"),
    wrong("report ''", "OUT '' is empty"),
    wrong("build_nsp --source --out {out}", "--source has no value: what follows it, --out, is a flag; give a value"),
    wrong("build_nsp --out --source {film}", "--out has no value: what follows it, --source, is a flag"),
    wrong("build_nsp --out --source={film}", "--out has no value: what follows it, --source={film}, is a flag"),
    wrong(f"{BUILD} --workers --judge none", "--workers has no value: what follows it, --judge, is a flag"),
    wrong(f"{BUILD} --test -h", "--test has no value: what follows it, -h, is a flag"),
    wrong(f"{BUILD} --judge claude --batches --model --no-batches", "--model has no value: what follows it, --no-"),
    wrong("show {built} --extract --json", "--extract has no value: what follows it, --json, is a flag"),
    wrong(f"{TOY} --data --steps 3", "--data has no value: what follows it, --steps, is a flag"),
    # numbers
    wrong(f"{BUILD} --test 10", "test must lie between 0 and 1, not 10.0; 10 % is 0.1"),
    wrong(f"{BUILD} --test 10%", "--test: '10%' is not a number; write it in digits alone"),
    wrong(f"{BUILD} --workers 1,000", "--workers: '1,000' is not a whole number; write it in digits alone"),
    wrong(f"{BUILD} --encode.width 832*480", "--encode.width: '832*480' is not a whole number"),
    wrong(f"{CLAUDE} --budget-usd $5", "--budget-usd: '$5' is not a number"),
    wrong(f"{CLAUDE} --budget-usd 5e", "--budget-usd: '5e' is not a number"),
    wrong(f"{CLAUDE} --budget-usd -5", "--budget-usd: -5.0 is not in the range"),
    wrong(f"{TOY} --data {{built}} --steps 1e3", "--steps: '1e3' is not a whole number"),
    # flags
    wrong(f"{BUILD} --crf 20", "--crf: no such flag; is --encode.crf meant?"),
    wrong(f"{BUILD} --rules.min_width 100", "--rules.min_width: no such flag; is --rules.min-width meant?"),
    wrong(f"{BUILD} --max-frames 65", "is --encode.max-frames"),
    wrong(f"{BUILD} --resume", "--resume: no such flag; --help lists them"),
    wrong("build_nsp {film/clips.csv} --out {out}", "{film/clips.csv}: it stands behind no flag"),
    wrong("build_nsp --source {film/clips.csv} --out", "--out: option '--out' requires an argument"),
    wrong("report {built} {built}", "{built}: it stands behind no flag"),
    wrong("show", "OUT is missing; --help says what it is"),
    # files of settings
    wrong(f"{BUILD} --config {{broken.toml}}", "{broken.toml}: no TOML", "line 1", "write a setting as unit_size = 32"),
    wrong(f"{BUILD} --config {{json.toml}}", "{json.toml}: no TOML", "write a setting as unit_size = 32"),
    wrong(f"{BUILD} --config {{yaml.toml}}", "{yaml.toml}: no TOML", "Expected '='"),
    wrong(f"{BUILD} --config {{windows.toml}}", "{windows.toml}: no TOML", "with \\\\ for \\"),
    wrong(f"{BUILD} --config {{utf16.toml}}", "{utf16.toml}: no text in UTF-8; save it as UTF-8"),
    wrong(f"{BUILD} --config {{scalar.toml}}", "rules = 3 should be a table, [rules], with rules.min_width"),
    wrong(f"{BUILD} --config {{table.toml}}", "no setting 'unit_size.x'; is 'unit_size' meant?"),
    wrong(f"{BUILD} --config {{near.toml}}", "no setting 'rules.minwidth'; is 'rules.min_width' meant?"),
    wrong(f"{BUILD} --config {{film}}", "--config: file", "is a directory; name a file that is there"),
    wrong("train --stage sft --recipe {mix.toml} --data a --qwen q --ltx l --out {out}", "as [[mix]]"),
    wrong(f"{CLAUDE} --prices {{empty.toml}}", "{empty.toml}: 'model' is missing; see judge/spending/prices.toml"),
    wrong(f"{CLAUDE} --prices {{prices.toml}}", "not a table of prices: a value is of another type"),
    # keys
    wrong(CLAUDE, "ANTHROPIC_API_KEY is not set; set it, or use --judge film or --judge none"),
    wrong(CLAUDE, "ANTHROPIC_API_KEY is not set", ANTHROPIC_API_KEY=" \n"),
    wrong(CLAUDE, "ANTHROPIC_API_KEY holds quotes", ANTHROPIC_API_KEY="'sk-ant-a'"),
    wrong(CLAUDE, "or a variable that was not filled in", ANTHROPIC_API_KEY="$KEY"),
    wrong(CLAUDE, "holds a key of another provider", ANTHROPIC_API_KEY="sk-proj-a"),
    wrong(CLAUDE, "holds a space or a letter", ANTHROPIC_API_KEY="sk-ant-a\nsk-ant-b"),
    wrong(
        CLAUDE, "=api.anthropic.com is not an address", ANTHROPIC_API_KEY="a", ANTHROPIC_BASE_URL="api.anthropic.com"
    ),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = lay_places(tmp_path_factory.mktemp("wrong") / "places")
    build_inline(captioned_spans(folder / "film", 2), folder / "built", SMALL)
    shutil.copytree(folder / "built", folder / "near" / "set")
    for name, text in TEXTS.items():
        (folder / name).write_bytes(text)
    return folder


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_a_mistake_is_one_line_and_changes_nothing(case: Wrong, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(places)
    assert_refused(case, places)


def test_a_missing_key_is_told_with_the_remedies_of_this_command_alone(places: Path) -> None:
    _, _, stderr = run(CLAUDE, places)
    assert stderr.rstrip().endswith("is not set; set it, or use --judge film or --judge none")


def test_there_are_sixty_of_them_and_more() -> None:
    from tests.pipelines.test_wrong_models import WRONG as AROUND_MODELS

    assert len({str(case) for case in [*WRONG, *AROUND_MODELS]}) == len(WRONG) + len(AROUND_MODELS) >= 120


@pytest.mark.parametrize("text", ["a b", "café", "a$b", "50% off", "s3://bucket/a b", "file:///x", "~", ".", "a:b"])
def test_names_that_may_be_meant_are_left_alone(text: str) -> None:
    assert check_typed_path(text) == text


def test_what_is_there_is_meant_however_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("C:\\data", '"quoted"', " blank ", "$HOME", "%TEMP%", "back\\slash"):
        with pytest.raises(BadLocation):
            check_typed_path(name)
        Path(name).mkdir()
        assert check_typed_path(name) == name


def test_settings_that_begin_with_a_byte_order_mark_are_read(places: Path, tmp_path: Path) -> None:
    from nextscene.pipelines.build_nsp import main

    (tmp_path / "bom.toml").write_bytes(b'\xef\xbb\xbfjudge = "none"\ntest = 0.0\nunit_size = 2\nunits_per_shard = 2\n')
    before = (places / "built" / "manifest.json").read_bytes()
    command = ["--source", f"{places}/film/clips.csv", "--out", f"{places}/built", "--config", f"{tmp_path}/bom.toml"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert (places / "built" / "manifest.json").read_bytes() == before


# ---- the machine's fault -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "generate --run {run} --scene a --out {closed/out}",
        "generate --run {run} --scene a --out {closed/a.mp4}",
        "make_tiny --data {data} --out {closed/out}",
        "encode_latents --data {data} --ltx {ltx} --out {closed/out}",
        "evaluate --model a={run} --scenes {scenes.txt} --out {closed/out}",
        "train --stage sft --data nsp={data} --qwen {qwen} --ltx {ltx} --out {closed/out}",
        "fetch_film {closed/film}",
    ],
)
def test_a_place_that_cannot_be_written_to_is_told_before_anything_is_loaded(
    line: str, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system tells another user than root, who may write everywhere."""
    (places / "closed").mkdir(exist_ok=True)
    told = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != places / "closed" and told(path, mode))
    before = tree(places)
    code, stdout, stderr = run(line, places)
    assert (code, stdout) == (3, ""), stderr
    assert stderr.startswith("error: cannot write in ") and f"{places}/closed is read-only" in stderr.splitlines()[0]
    assert tree(places) == before
