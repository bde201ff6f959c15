"""What costs money is asked for: clips without a caption under `--judge claude`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.plan import Plan
from nextscene.curation.run.prepare import prepare
from nextscene.curation.sources import Source
from nextscene.judge.spending.estimate import CASES, Estimator, PendingClip
from nextscene.pipelines.build_nsp import main
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import CLAUDE, CLAUDE_FLAGS, MODEL, judge_budget, outcomes
from tests.support import build_inline, make_video, run_ffmpeg, write_csv

pytestmark = pytest.mark.slow

MONEY = r"\$([\d,.]+) to \$([\d,.]+)"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioned video, one without a caption, an image without one, and one that is not there."""
    folder = tmp_path_factory.mktemp("in")
    make_video(folder / "a.mp4", 0.25)
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=900x600", "-frames:v", "1", str(folder / "b.png"))
    names = {"a.mp4 1": "a given caption", "a.mp4 2": "", "b.png": "\u200b", "gone.mp4": "another"}
    rows = [{"video": name.split()[0], "id": name, "caption": caption} for name, caption in names.items()]
    return write_csv(folder / "clips.csv", rows)


def run(*arguments: str, key: str = "x") -> tuple[int, str, str]:
    env = {"ANTHROPIC_API_KEY": key, "ANTHROPIC_AUTH_TOKEN": "", "COLUMNS": "200"}
    result = CliRunner(env=env).invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr


def error(*arguments: str) -> str:
    code, stdout, stderr = run(*arguments)
    assert (code, stdout, len(stderr.splitlines())) == (2, "", 1), stderr
    return stderr


def expected(case: str, in_batch: bool) -> float:
    """What captioning the video and the image adds, by the estimate of the whole with and without."""
    price = judge_budget().price
    estimator = Estimator(CLAUDE.claude, price, CASES[case])
    letters = CASES[case].caption_tokens * CASES[case].chars_per_token
    total = 0.0
    for pictures in (CLAUDE.claude.frames, 1):
        bare, captioned = (
            estimator.bill(PendingClip("", pictures)),
            estimator.bill(PendingClip("x" * round(letters), pictures)),
        )
        total += float(bare.usd(price, in_batch) - captioned.usd(price, in_batch))
    return total


def test_they_are_an_error_that_says_how_many_and_what_they_would_cost(source: Path, tmp_path: Path) -> None:
    line = error("--source", str(source), "--out", str(tmp_path / "out"), *CLAUDE_FLAGS)
    assert "2 of 4 clips without a caption" in line
    assert "--caption-missing" in line and "--skip-uncaptioned" in line
    (low, high), (low_batch, high_batch) = ([float(x) for x in found] for found in re.findall(MONEY, line))
    assert low == pytest.approx(expected("low", False), abs=0.00006)
    assert high == pytest.approx(expected("high", False), abs=0.00006)
    assert (low_batch, high_batch) == (
        pytest.approx(expected("low", True), abs=0.00006),
        pytest.approx(expected("high", True), abs=0.00006),
    )
    assert not (tmp_path / "out").exists()


def test_asked_for_they_are_captioned(api: ClaudeApi, source: Path, tmp_path: Path) -> None:
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget(uncaptioned="caption"))
    assert outcomes(tmp_path / "out") == [("kept", "")] * 3 + [("absent", "no_file")]
    assert len(api.exchanges) == 2 + 3 + 3


def test_skipped_clips_without_a_caption_end_so_and_are_not_asked_about(
    api: ClaudeApi, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build_inline(source, out, CLAUDE, judge_budget=judge_budget(uncaptioned="skip"))
    ends = [("kept", ""), ("rejected", "no_caption"), ("rejected", "no_caption"), ("absent", "no_file")]
    assert outcomes(out) == ends
    assert len(api.exchanges) == 2
    plan = Plan(Storage.at(out), CLAUDE)
    assert (plan.uncaptioned, plan.skipped) == (0, 2)


@pytest.mark.parametrize("given", ["caption", "skip"])
def test_a_plan_that_stands_goes_on_without_the_flag_and_is_the_same_dataset(
    api: ClaudeApi, source: Path, tmp_path: Path, given: str
) -> None:
    out = tmp_path / "out"
    build_inline(source, out, CLAUDE, judge_budget=judge_budget(uncaptioned=given))  # type: ignore[arg-type]
    before = outcomes(out)
    build_inline(source, out, CLAUDE, judge_budget=judge_budget())
    assert outcomes(out) == before
    fingerprints = {json.loads((out / "summary.json").read_text())["fingerprint"]}
    build_inline(
        write_csv(source.with_name("all.csv"), [{"video": "a.mp4", "caption": "it"}]),
        tmp_path / "other",
        CLAUDE,
        judge_budget=judge_budget(),
    )
    fingerprints.add(json.loads((tmp_path / "other" / "summary.json").read_text())["fingerprint"])
    assert len(fingerprints) == 1


@pytest.mark.parametrize(("first", "then"), [("caption", "skip"), ("skip", "caption")])
def test_a_plan_of_the_other_choice_is_refused_once_anything_was_done_by_it(
    api: ClaudeApi, source: Path, tmp_path: Path, first: str, then: str
) -> None:
    """Before that it is made anew."""
    place, given = Storage.at(tmp_path / "out"), Source.at(str(source))
    for choice in (first, then, first):
        prepare(place, given, CLAUDE, judge_budget(uncaptioned=choice))  # type: ignore[arg-type]
        assert (Plan(place, CLAUDE).skipped > 0) == (choice == "skip")
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    with pytest.raises(UsageError, match=r"was planned as with `.+ 2 clips without a caption"):
        prepare(place, given, CLAUDE, judge_budget(uncaptioned=then))  # type: ignore[arg-type]
    flag = "--skip-uncaptioned" if then == "skip" else "--caption-missing"
    told = error("--source", str(source), "--out", str(tmp_path / "out"), *CLAUDE_FLAGS, "--estimate", flag)
    assert f"leave {flag} out" in told


@pytest.mark.parametrize("flag", ["--caption-missing", "--skip-uncaptioned"])
@pytest.mark.parametrize("judge", ["film", "none"])
def test_another_judge_knows_no_such_flag(source: Path, tmp_path: Path, judge: str, flag: str) -> None:
    line = error("--source", str(source), "--out", str(tmp_path / "out"), "--judge", judge, flag)
    assert f"{flag} means nothing with --judge {judge}" in line


def test_both_flags_together_are_refused(source: Path, tmp_path: Path) -> None:
    flags = ("--caption-missing", "--skip-uncaptioned")
    line = error("--source", str(source), "--out", str(tmp_path / "out"), *CLAUDE_FLAGS, *flags)
    assert all(flag in line for flag in flags)


# ---- the estimate ----------------------------------------------------------------------------------------------


def estimate(source: Path, out: Path, *more: str) -> str:
    code, stdout, stderr = run("--source", str(source), "--out", str(out), *CLAUDE_FLAGS, "--estimate", *more, key="")
    assert (code, stderr) == (0, "")
    assert not out.exists()
    return stdout


def row(said: str, name: str) -> list[float]:
    (line,) = [line for line in said.splitlines() if line.startswith(name)]
    return [float(cell.replace(",", "")) for cell in re.findall(r"\$?([\d.,]+)", line.removeprefix(name))]


def test_the_estimate_says_what_captioning_costs_and_that_it_is_to_be_asked_for(source: Path, tmp_path: Path) -> None:
    said = estimate(source, tmp_path / "out")
    assert "4 clips to be decided" in said
    assert row(said, "of it captions, one by one") == pytest.approx(
        [expected(case, False) for case in CASES], abs=0.006
    )
    assert "captions  none for 2 clips" in said and "--caption-missing" in said and "--skip-uncaptioned" in said
    assert "missing   no file for 1 clip," in said
    asked = estimate(source, tmp_path / "out", "--caption-missing")
    assert row(asked, "calls") == row(said, "calls") and "the run wants" not in asked


def test_clips_that_are_left_out_or_missing_cost_nothing(source: Path, tmp_path: Path) -> None:
    said = estimate(source, tmp_path / "out", "--skip-uncaptioned", "--assume", "pass_rate=1,screened=1")
    assert "4 clips to be decided" in said and "captioned first" not in said
    assert "captions  none that can be used for 2 clips" in said and "missing   no file for 1 clip," in said
    assert row(said, "calls") == [2, 2, 2]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("video,caption\ngone.mp4,x\ngone too.mp4,y\n", ("none of the 2 files", "'gone.mp4'", "relative to {folder}")),
        ("video,caption\nsub\\a.mp4,x\n", ("write / for \\",)),
        ("video,caption,id\na.mp4,x,1\na.mp4,y,1\n", ("number 2 (1) is the same as number 1 (1)",)),
        ("video,start_time,caption\na.mp4,1,x\n", ("'start_time'", "`start`")),
        ("video,caption,start\na.mp4,x,soon\n", ("line 2", "start 'soon'")),
        ("video,caption\n", ("no videos or images",)),
    ],
)
def test_the_estimate_refuses_what_planning_refuses_in_the_same_words(
    tmp_path: Path, table: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "clips.csv").write_text(table)
    given = ("--source", str(tmp_path / "clips.csv"), "--out", str(tmp_path / "out"), *CLAUDE_FLAGS)
    planned, estimated = error(*given), error(*given, "--estimate")
    assert planned == estimated
    assert all(word.format(folder=tmp_path) in planned for word in words), planned
    assert not (tmp_path / "out").exists()


def test_the_model_of_the_costs_is_the_one_that_is_asked(source: Path, tmp_path: Path) -> None:
    given = ("--source", str(source), "--out", str(tmp_path / "out"), *CLAUDE_FLAGS)
    dear, cheap = (re.findall(MONEY, error(*given, "--model", model)) for model in (MODEL, "claude-haiku-5-5"))
    assert float(cheap[0][1]) < float(dear[0][1])
