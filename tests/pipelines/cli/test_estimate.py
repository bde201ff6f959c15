"""`--estimate`: what a run will cost, before anything is asked, and how close that comes to the run's own bill."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from click.testing import CliRunner

from nextscene.common.errors import RunStopped, UsageError
from nextscene.judge.config import ClaudeConfig
from nextscene.judge.spending.estimate import CASES
from nextscene.pipelines.build_nsp import main
from nextscene.prompts import load
from tests.fakes.claude_api import AnswerRules, ClaudeApi, Exchange, Question
from tests.fakes.loopback import CLAUDE, CLAUDE_FLAGS, account, judge_budget, spans, stored, true_cost
from tests.support import REPOSITORY, build_inline, make_video, write_csv

pytestmark = pytest.mark.slow

CLIPS = 104
RULES = AnswerRules(pass_rate=0.6, scene_words=30)
CENT = 0.006
NAMES = ("calls", "input tokens", "output tokens", "one by one", "in batches")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return spans(tmp_path / "in", [f"the thing of number {i:03d} is seen" for i in range(CLIPS)])


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    monkeypatch.setattr("nextscene.judge.spending.cached_client._STORE_SECONDS", 0.02)
    with ClaudeApi(rules=RULES) as api:
        for name, value in api.env.items():
            monkeypatch.setenv(name, value)
        yield api


@dataclass(frozen=True)
class Estimate:
    """The printed table: name → low, expected, high."""

    clips: int
    rows: dict[str, tuple[float, float, float]]

    def __getitem__(self, name: str) -> tuple[float, float, float]:
        return self.rows[name]


def estimate(source: Path, out: Path, *more: str) -> Estimate:
    code, stdout, stderr = run(source, out, *more)
    assert code == 0, stderr
    found = re.match(r"([\d,]+) clips? to be decided, asked of (\S+); nothing was sent\.", stdout)
    assert found and found[2] == ClaudeConfig().model, stdout
    rows = {}
    for line in stdout.splitlines():
        if cells := re.fullmatch(r"(\D+?) +(\$?[\d.,]+) +(\$?[\d.,]+) +(\$?[\d.,]+) *", line):
            low, expected, high = (float(cell.strip("$").replace(",", "")) for cell in cells.groups()[1:])
            rows[cells[1].strip()] = (low, expected, high)
    assert set(NAMES) <= rows.keys(), stdout
    return Estimate(int(found[1].replace(",", "")), rows)


def run(source: Path, out: Path, *more: str) -> tuple[int, str, str]:
    given = ["--source", str(source), "--out", str(out), *CLAUDE_FLAGS, "--estimate", *more]
    result = CliRunner(env={"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "", "COLUMNS": "200"}).invoke(main, given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr


def used(exchanges: list[Exchange]) -> dict[str, float]:
    """What a run used, by the server's log."""
    usages = [exchange.usage for exchange in exchanges if exchange.usage]
    dollars = float(true_cost(exchanges))
    return {
        "calls": len(usages),
        "input tokens": sum(usage["input_tokens"] for usage in usages),
        "output tokens": sum(usage["output_tokens"] for usage in usages),
        "one by one": dollars,
        "in batches": dollars / 2,
    }


def learned(exchanges: list[Exchange]) -> str:
    """What --assume may be told after a first run: its pass rate and the mean lengths of its answers."""
    describes = [e for e in exchanges if "Predict the most likely prior event" in Question(e.body).text]
    verifies = [e for e in exchanges if "semantically redundant" in Question(e.body).text]
    passes = [e for e in verifies if '"Pass"' in (RULES.answer(Question(e.body)).text or "")]
    lengths = [mean(e.usage["output_tokens"] for e in kind if e.usage) for kind in (describes, verifies)]
    return (
        f"pass_rate={len(passes) / len(verifies):.4f},scene_tokens={lengths[0]:.3f},verdict_tokens={lengths[1]:.3f},"
        f"chars_per_token={RULES.chars_per_token},schema_tokens=0,screened=1"
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def stop_after(api: ClaudeApi, answers: int) -> None:
    answer = api.answer

    def counted(question: Question, tier: str) -> dict[str, Any]:
        if len(api.paid) == answers - 1:
            api.account = "spend_limit"
        return answer(question, tier)

    api.answer = counted  # type: ignore[method-assign]


# ---- how good it is --------------------------------------------------------------------------------------------


def test_given_pass_rate_and_lengths_the_estimate_is_within_a_tenth_of_the_run(
    api: ClaudeApi, source: Path, tmp_path: Path
) -> None:
    """And told nothing, the truth lies between low and high. In the middle of the run it counts what is left."""
    out = tmp_path / "out"
    blind = estimate(source, out)
    assert api.exchanges == [] and not out.exists()
    stop_after(api, 170)
    with pytest.raises(RunStopped):
        build_inline(source, out, CLAUDE, judge_budget=judge_budget())
    half, api.account = list(api.exchanges), "good"
    middle, before = learned(half), tree(out)
    left = estimate(source, out, "--assume", middle)
    assert tree(out) == before and len(api.exchanges) == len(half)

    build_inline(source, out, CLAUDE, judge_budget=judge_budget())
    whole = [exchange for exchange in api.exchanges if exchange.status == 200]
    truth, truth_left = used(whole), used(api.exchanges[len(half) :])
    informed = estimate(source, tmp_path / "elsewhere", "--assume", learned(whole))
    assert (blind.clips, informed.clips) == (CLIPS, CLIPS) and 0 < left.clips < CLIPS
    for name in NAMES:
        low, expected, high = informed[name]
        assert low == expected == high
        # Dollars are printed in cents.
        assert expected == pytest.approx(truth[name], rel=0.1, abs=CENT if name in NAMES[3:] else 0)
        assert blind[name][0] < truth[name] < blind[name][2]
        # What is left is half as many clips, so chance counts for more.
        off = 0.15 * truth_left[name] + (CENT if name in NAMES[3:] else 0)
        assert left[name][1] == pytest.approx(truth_left[name], abs=off)
    assert float(account(out).spent) == pytest.approx(truth["one by one"])

    done = estimate(source, out)
    assert done.clips == 0
    assert all(done[name] == (0, 0, 0) for name in NAMES)


def test_when_all_pass_the_calls_that_are_left_are_counted_exactly(
    api: ClaudeApi, source: Path, tmp_path: Path
) -> None:
    """A describe and a verify a clip, less what is stored, wherever it was stopped."""
    api.rules = AnswerRules(pass_rate=1.0)
    stop_after(api, 21)
    with pytest.raises(RunStopped):
        build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    found = estimate(source, tmp_path / "out", "--assume", "pass_rate=1,screened=1")
    assert found["calls"] == (2 * CLIPS - len(stored(tmp_path / "out")),) * 3
    assert 21 <= len(stored(tmp_path / "out")) == len(api.paid)


def test_the_dollars_are_those_of_the_tokens_by_the_price_list(source: Path, tmp_path: Path) -> None:
    """Half in batches; and by another list, that list's."""
    found = estimate(source, tmp_path / "out")
    for case in range(3):
        dollars = (2 * found["input tokens"][case] + 10 * found["output tokens"][case]) / 1e6
        assert found["one by one"][case] == pytest.approx(dollars, abs=0.006)
        assert found["in batches"][case] == pytest.approx(dollars / 2, abs=0.006)
    prices = (REPOSITORY / "judge" / "spending" / "prices.toml").read_text()
    (tmp_path / "prices.toml").write_text(
        prices.replace(
            "[model.claude-sonnet-5-5]\ninput = 2\noutput = 10", "[model.claude-sonnet-5-5]\ninput = 200\noutput = 1000"
        )
    )
    dear = estimate(source, tmp_path / "out", "--prices", str(tmp_path / "prices.toml"))
    assert dear["one by one"][1] == pytest.approx(100 * found["one by one"][1], rel=0.05)


def test_clips_without_a_caption_are_billed_for_their_pictures(tmp_path: Path) -> None:
    """Eight pictures of 252 tokens for a video, one for an image, none where there is a caption."""
    for name in ("a.mp4", "b.png", "c.mp4"):
        make_video(tmp_path / "x.mp4", 0.25).rename(tmp_path / name)
    rows = [{"video": "a.mp4"}, {"video": "b.png"}, {"video": "c.mp4", "caption": "a caption of thirty letters ok"}]
    assumed = "pass_rate=1,screened=1,chars_per_token=1,caption_tokens=30,scene_tokens=10,verdict_tokens=5"
    bills = []
    for kept in ([0], [1], [2]):
        manifest = write_csv(
            tmp_path / f"{kept[0]}.csv", [rows[i] | {"caption": rows[i].get("caption", "")} for i in kept]
        )
        bills.append(estimate(manifest, tmp_path / "out", "--assume", f"{assumed},schema_tokens=0"))
    video, image, captioned = bills
    assert [bill["calls"][1] for bill in bills] == [3, 3, 2]
    assert [bill["output tokens"][1] for bill in bills] == [45, 45, 15]
    of_pictures = video["input tokens"][1] - captioned["input tokens"][1] - len(load("caption").text)
    assert of_pictures == pytest.approx(8 * (252 + len("0.00 s:")), abs=2)
    assert video["input tokens"][1] - image["input tokens"][1] == pytest.approx(7 * (252 + len("0.00 s:")), abs=2)


# ---- what it leaves alone --------------------------------------------------------------------------------------


def test_it_needs_no_key_sends_nothing_and_writes_nothing(
    api: ClaudeApi, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the SDK or Ray asked to do anything: their folders of state do not appear either."""
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    estimate(source, tmp_path / "out")
    estimate(source, tmp_path / "out", "--budget-usd", "1", "--batches")
    assert tree(tmp_path) == before
    assert api.exchanges == [] and api.batches == []


def test_a_source_that_has_moved_is_estimated_as_it_was_and_another_is_refused(api: ClaudeApi, tmp_path: Path) -> None:
    """As a run would accept it; but the place where it lies now is not recorded."""
    source, out = spans(tmp_path / "in", [f"thing {number}" for number in range(12)]), tmp_path / "out"
    stop_after(api, 11)
    with pytest.raises(RunStopped):
        build_inline(source, out, CLAUDE, judge_budget=judge_budget())
    before, left = tree(out), estimate(source, out)
    (tmp_path / "in").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / source.name
    assert estimate(moved, out) == left and left.clips > 0
    assert tree(out) == before
    with next((tmp_path / "moved").glob("*.mp4")).open("ab") as file:
        file.write(b"x")
    code, stdout, stderr = run(moved, out)
    assert (code, stdout) == (2, "") and "is another source: 12 clips of another size (" in stderr
    assert tree(out) == before


def test_no_file_of_the_source_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = spans(tmp_path / "in", ["one thing", "another"])
    monkeypatch.setattr("nextscene.curation.sources.digests", None)
    assert estimate(source, tmp_path / "out").clips == 2


def test_a_dataset_of_other_settings_is_not_estimated(api: ClaudeApi, tmp_path: Path) -> None:
    source = spans(tmp_path / "in", ["one thing", "another"])
    build_inline(source, tmp_path / "out", CLAUDE, judge_budget=judge_budget())
    before, asked = tree(tmp_path), len(api.exchanges)
    code, stdout, stderr = run(source, tmp_path / "out", "--claude.rounds", "2")
    assert (code, stdout) == (2, "")
    assert "claude.rounds is 2, was 3" in stderr
    assert tree(tmp_path) == before and len(api.exchanges) == asked


def test_a_plan_by_which_nothing_was_asked_yet_does_not_bind_the_estimate(api: ClaudeApi, tmp_path: Path) -> None:
    """It is as if there were none: the same run would make a new one."""
    source, out = spans(tmp_path / "in", ["one thing", "another"]), tmp_path / "out"
    api.models = frozenset()
    with pytest.raises(UsageError):
        build_inline(source, out, CLAUDE, judge_budget=judge_budget())
    before = tree(tmp_path)
    here, elsewhere = (estimate(source, place, "--claude.rounds", "2") for place in (out, tmp_path / "elsewhere"))
    assert here == elsewhere and here.clips == 2
    assert tree(tmp_path) == before


def test_what_a_retry_would_cost_is_not_told(tmp_path: Path) -> None:
    """It would be the price of what is not decided yet, which is something else."""
    source = write_csv(tmp_path / "clips.csv", [{"video": "a.mp4", "caption": "x"}])
    code, stdout, stderr = run(source, tmp_path / "out", "--retry", "refused")
    assert (code, stdout) == (2, "")
    assert re.fullmatch(r"error: --estimate .+ --retry .+\n", stderr)


@pytest.mark.parametrize(
    ("assumed", "words"),
    [
        ("passrate=0.5", ("passrate=0.5", "is pass_rate meant?")),
        ("scene_tokns=5", ("is scene_tokens meant?",)),
        ("weather=good", ("weather=good", *CASES["low"].__dataclass_fields__)),
        ("pass_rate=often", ("'often' is not a number",)),
        ("pass_rate", ("pass_rate", "not a number")),
        ("pass_rate=1.5", ("must lie above 0 and not above 1",)),
        ("scene_tokens=0", ("must lie above 0",)),
        ("scene_tokens=nan", ("must lie above 0",)),
        ("scene_tokens=inf", ("must lie above 0",)),
        ("pass_rate=0.5,verdict_tokens=-1", ("verdict_tokens=-1", "must lie above 0")),
    ],
)
def test_a_bad_assumption_is_told_with_the_nearest_name(tmp_path: Path, assumed: str, words: tuple[str, ...]) -> None:
    source = write_csv(tmp_path / "clips.csv", [{"video": "a.mp4", "caption": "x"}])
    code, stdout, stderr = run(source, tmp_path / "out", "--assume", assumed)
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1 and stderr.startswith("error: --assume ")
    assert all(word in stderr for word in words), stderr
    assert not (tmp_path / "out").exists()


def test_what_is_assumed_is_shown_and_dashes_and_spaces_are_as_good(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    source = write_csv(tmp_path / "clips.csv", [{"video": "a.mp4", "caption": "x"}])
    plain = estimate(source, tmp_path / "out")
    for name, case in CASES["low"].__dict__.items():
        assert plain[f"assumed {name}"] == (case, *(getattr(CASES[c], name) for c in ("expected", "high")))
    told = estimate(source, tmp_path / "out", "--assume", "pass-rate=0.5, scene_tokens = 33 ,")
    assert told["assumed pass_rate"] == (0.5,) * 3 and told["assumed scene_tokens"] == (33,) * 3
    assert Decimal(str(told["assumed verdict_tokens"][0])) == Decimal(str(CASES["low"].verdict_tokens))
