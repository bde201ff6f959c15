"""The terms of asking that OUT keeps: the budget holds whatever befell it, prices too; nothing is asked untold."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest

from nextscene.common.fence import LOCK
from nextscene.common.storage import Storage
from nextscene.curation.run.recorded_budget import RecordedBudget
from nextscene.pipelines.cli.begun_dataset import BegunDataset
from nextscene.shards.format.layout import CALLS, CONFIG, TERMS
from tests.command import SMALL_FLAGS
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import CLAUDE, CLAUDE_FLAGS, account, files_of, spans, stored, true_cost
from tests.fakes.without_ray import build, command
from tests.faults.test_killed_before_the_page import Fate, Killed

PRICES = """
date = 2027-01-02
batch = 0.5
cache_write_5m = 1.25
cache_write_1h = 2
cache_read = 0.1
[model.{model}]
input = 4
output = 20
effort = false
"""


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("inline")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return spans(tmp_path / "in", ["thing a", "thing b"])


def refused(*given: object) -> str:
    """The one line."""
    ended = command(*given)
    (line,) = ended.stderr.splitlines()
    assert ended.exit_code == 2 and ended.stdout == "", ended.output
    return line


def without_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")


# ---- a limit that was not given ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [(), ("calls/account.json",)])
def test_an_out_that_kept_no_budget_asks_nothing_until_one_is_told(
    api: ClaudeApi, source: Path, tmp_path: Path, lost: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    build("--source", source, "--out", out, *CLAUDE_FLAGS, "--stop-after", "1")
    for name in (TERMS, *lost):
        (out / name).unlink()
    before, asked = files_of(out), len(api.exchanges)
    for more in ((), ("--retry", "failed"), CLAUDE_FLAGS, ("--batches",)):
        line = refused("--out", out, *more)
        assert f"${true_cost(api.exchanges):,.4f} is spent on it so far" in line, more
        assert "give --budget-usd X" in line and "--budget-usd none" in line
    assert files_of(out) == before and len(api.exchanges) == asked
    assert " to be decided" in build("--out", out, "--estimate")
    caplog.clear()
    build("--out", out, "--budget-usd", "none")
    assert "without a limit" in caplog.messages[0]

    (out / TERMS).unlink()  # nothing is left to ask
    assert build("--out", out).startswith("Nothing to do") and not (out / TERMS).exists()
    assert "nothing says what may be spent" in refused("--out", out, "--retry", "rejected")


def test_the_command_that_began_an_older_out_without_a_bound_goes_on_with_it(
    api: ClaudeApi, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = ("--source", source, "--out", tmp_path / "out", *CLAUDE_FLAGS)
    build(*line, "--stop-after", "1")
    (tmp_path / "out" / TERMS).unlink()
    caplog.clear()
    build(*line)
    assert "without a limit" in caplog.messages[0]


def test_a_new_out_may_be_without_a_bound_and_goes_on_so(
    api: ClaudeApi, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build("--source", source, "--out", tmp_path / "out", *CLAUDE_FLAGS, "--stop-after", "1")
    build("--out", tmp_path / "out")
    assert [("without a limit" in line) for line in caplog.messages if "is asked" in line] == [True, True]


def test_a_budget_can_be_taken_back(
    api: ClaudeApi, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    build("--source", source, "--out", out, *CLAUDE_FLAGS, "--budget-usd", "5", "--stop-after", "1")
    for wrong in ("inf", "nan"):
        assert "none means no limit" in refused("--out", out, "--budget-usd", wrong)
    caplog.clear()
    build("--out", out, "--budget-usd", "None")
    kept = RecordedBudget.read(Storage.at(out))
    assert "without a limit" in caplog.messages[0] and kept and kept.budget is None


def test_answers_that_were_copied_bring_no_budget_along(api: ClaudeApi, source: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    build("--source", source, "--out", out, *CLAUDE_FLAGS, "--budget-usd", "0.5")
    more = spans(tmp_path / "more", ["thing a", "thing b", "thing c"])
    shutil.copytree(out / CALLS, other / CALLS)
    before, asked = files_of(other), len(api.exchanges)
    line = refused("--source", more, "--out", other, *CLAUDE_FLAGS)
    assert f"{TERMS} is that of another dataset; $" in line and "--budget-usd none" in line
    assert files_of(other) == before
    build("--source", more, "--out", other, *CLAUDE_FLAGS, "--budget-usd", "3")
    kept = RecordedBudget.read(Storage.at(other))
    assert kept and kept.budget == 3 and len(api.exchanges) == asked + 2
    whole = shutil.copytree(out, tmp_path / "whole")
    assert build("--out", whole).startswith("Nothing to do")  # with its plan it is the same dataset


def test_a_note_of_an_older_version_still_reads(api: ClaudeApi, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build("--source", source, "--out", out, *CLAUDE_FLAGS, "--stop-after", "1")
    (out / TERMS).write_text('{"budget_usd": "0.7", "batches": true}')
    assert RecordedBudget.read(Storage.at(out)) == RecordedBudget(Decimal("0.7"), in_batches=True)
    build("--out", out, "--no-batches")
    kept = RecordedBudget.read(Storage.at(out))
    assert kept and (kept.budget, kept.in_batches) == (Decimal("0.7"), False)


# ---- killed ----------------------------------------------------------------------------------------------------


def test_between_any_two_changes_of_a_beginning_the_budget_is_not_lost(
    api: ClaudeApi, source: Path, tmp_path: Path
) -> None:
    """Killed there, OUT alone is refused, or knows the budget."""
    begun = []
    for changes in range(1, 6):
        out = tmp_path / str(changes)
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            Fate(patch, changes)
            command("--source", source, "--out", out, *CLAUDE_FLAGS, "--budget-usd", "0.03")
        (out / LOCK).unlink(missing_ok=True)
        begun.append((out / CONFIG).exists())
        if begun[-1]:
            asking = BegunDataset.at(Storage.at(out)).judge_budget(CLAUDE, None, None, "mistake", None)
            assert asking.judge_budget and (asking.judge_budget.budget, asking.judge_unavailable) == (
                Decimal("0.03"),
                "",
            )
        else:
            assert "--source is missing" in refused("--out", out)
    assert {False, True} == set(begun) and begun == sorted(begun)


# ---- prices ----------------------------------------------------------------------------------------------------


def test_prices_that_were_given_are_kept_and_told(
    api: ClaudeApi, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice those of the built-in table, so answers cost twice."""
    out, dear = tmp_path / "out", tmp_path / "dear.toml"
    dear.write_text(PRICES.format(model="claude-sonnet-5-5"))
    build("--source", source, "--out", out, *CLAUDE_FLAGS, "--prices", dear, "--budget-usd", "5", "--stop-after", "1")
    dear.write_text(PRICES.format(model="claude-sonnet-5-5").replace("= 20", "= 40").replace("= 4", "= 8"))
    caplog.clear()
    build("--out", out)
    assert "up to $5 in all, by the table of `prices` ($4 in, $20 out, a million tokens); $" in caplog.messages[0]
    assert account(out).spent == sum(answer.usd for answer in stored(out).values()) == 2 * true_cost(api.exchanges)

    build("--out", out, "--prices", dear)
    kept = RecordedBudget.read(Storage.at(out))
    assert kept and kept.prices == dear.read_text()
    (out / TERMS).write_text(json.dumps({"budget_usd": None, "batches": False, "prices": "x"}))
    assert f"{TERMS} is damaged" in refused("--out", out)


def test_a_model_that_only_the_file_knows_is_known_from_then_on(api: ClaudeApi, source: Path, tmp_path: Path) -> None:
    out, ours = tmp_path / "out", tmp_path / "ours.toml"
    ours.write_text(PRICES.format(model="claude-haiku-4-9"))
    flags = (*CLAUDE_FLAGS, "--model", "claude-haiku-4-9")
    api.models |= {"claude-haiku-4-9"}
    assert "no price known" in refused("--source", source, "--out", out, *flags)
    build("--source", source, "--out", out, *flags, "--prices", ours, "--stop-after", "1")
    build("--out", out)
    assert " to be decided" in build("--out", out, "--estimate")
    (out / TERMS).unlink()  # as older versions left it
    assert build("--out", out).startswith("Nothing to do")
    assert "no price known" in refused("--out", out, "--retry", "failed")
    assert "no price known" in refused("--out", out, "--estimate")


# ---- what comes first ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--model", "gpt"), ("--budget-usd", "0.0001"), ("--model", "gpt", "--estimate")])
def test_another_judge_is_told_before_key_price_and_budget(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    without_key(monkeypatch)
    build("--source", source, "--out", tmp_path / "out", *SMALL_FLAGS)
    before = files_of(tmp_path / "out")
    assert "holds another plan: judge is claude, was none. " in refused(
        "--out", tmp_path / "out", "--judge", "claude", *more
    )
    assert files_of(tmp_path / "out") == before


def test_a_finished_out_needs_no_key(
    api: ClaudeApi, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    build("--source", source, "--out", out, *CLAUDE_FLAGS, "--stop-after", "1")
    half = shutil.copytree(out, tmp_path / "half")
    build("--out", out)
    without_key(monkeypatch)
    assert build("--out", out).startswith("Nothing to do")
    for given in (("--out", half), ("--out", out, "--retry", "failed")):
        line = refused(*given)
        assert "ANTHROPIC_API_KEY is not set; set it" in line and "--judge film" not in line


@pytest.mark.parametrize("flag", [("--estimate",), ("--batches",), ("--model", "x"), ("--budget-usd", "none")])
def test_no_judge_is_advised_that_out_refuses(source: Path, tmp_path: Path, flag: tuple[str, ...]) -> None:
    assert "give --judge claude" in refused("--source", source, "--out", tmp_path / "out", "--judge", "none", *flag)
    build("--source", source, "--out", tmp_path / "out", *SMALL_FLAGS)
    line = refused("--out", tmp_path / "out", *flag)
    assert "--judge claude" not in line and "leave it out" in line and "was begun with judge none" in line
