"""The real command with `--judge claude`, on Ray, against the API on loopback."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nextscene.common.errors import RunStopped
from nextscene.common.storage import Storage
from nextscene.pipelines.build_nsp import main
from tests.command import Ended, Place
from tests.fakes.claude_api import KEY, ClaudeApi, FaultSchedule, Limits
from tests.fakes.loopback import CLAUDE, CLAUDE_FLAGS, account, judge_budget, spans, stored, true_cost
from tests.support import (
    REPOSITORY,
    assert_conserved,
    assert_same_dataset,
    build_inline,
    captioned_spans,
    ledger,
    problems,
)

pytestmark = pytest.mark.slow

CLIPS = 60
MARKED = {3: "FAIL1", 7: "FAIL3", 20: "REFUSE-DESCRIBE", 31: "REFUSE-VERIFY", 44: "GARBLED", 50: "BAD-REQUEST"}
GO_ON = "All that is decided is kept; once that is mended, run the same command again to continue."
ONLY_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty clips, six of them marked."""
    return spans(
        tmp_path_factory.mktemp("source"), [f"thing {i:02d} is seen {MARKED.get(i, '')}".strip() for i in range(CLIPS)]
    )


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spans(tmp_path_factory.mktemp("twelve"), [f"thing {i:02d} is seen FAIL1" for i in range(12)])


def flags(source: Path, out: Path, *more: str) -> list[str]:
    return ["--source", str(source), "--out", str(out), *CLAUDE_FLAGS, "--workers", "2", *more]


def env(api: ClaudeApi) -> dict[str, str]:
    return {**api.env, "ANTHROPIC_AUTH_TOKEN": ""}


def answered(out: Path) -> int:
    return len(stored(out)) if (out / "calls").exists() else 0


def where_the_key_is(folder: Path, ended: Ended | None = None) -> list[str]:
    """Every file below a folder, and every output, that holds the key. Ray's logs are below the place of the run."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.parent.name == "logs" for path in files) or "ray" not in {path.name for path in folder.iterdir()}
    found = [str(path) for path in files if KEY.encode() in path.read_bytes()]
    said = [name for name in ("stdout", "stderr") if ended and KEY in getattr(ended, name)]
    return found + said


def ends(out: Path) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for row in ledger(out, CLAUDE):
        found[row.outcome, row.reason] = found.get((row.outcome, row.reason), 0) + 1
    return found


# ---- a whole run -----------------------------------------------------------------------------------------------


def test_a_whole_run_in_bad_weather_is_watched_and_a_second_call_asks_nothing(
    source: Path, here: Place, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rates = dict.fromkeys(["429", "529", "500", "drop-before", "drop-after", "slow"], 0.03)
    with ClaudeApi(faults=FaultSchedule(rates=rates), limits=Limits(latency=0.1)) as api:
        with here.start_build(*flags(source, out), env=env(api)) as run:
            run.until(lambda: answered(out) > 20)
            during = here.build("--out", str(out), "--status", env=env(api))
            ended = run.wait()
            assert run.left_behind() == []
        assert during.code == 0
        assert "at work" in during.stdout and re.search(r"^spent +\$0\.\d+ for [1-9]\d* answers", during.stdout, re.M)
        assert ended.code == 1, ended.stderr  # two clips of the sixty failed
        assert "without a limit: there is no --budget-usd" in ended.stderr  # a log record of the process on Ray
        assert ends(out) == {
            ("kept", ""): 55,
            ("dropped", "no_pass"): 1,
            ("refused", "frontier_llm"): 2,
            ("failed", "unreadable_answer"): 1,
            ("failed", "judge_error"): 1,
        }
        assert_conserved(out, CLAUDE)
        statement = account(out)
        delivered = [exchange for exchange in api.exchanges if exchange.status == 200 and exchange.delivered]
        assert statement.spent == true_cost(delivered)
        assert true_cost(api.exchanges) <= statement.spent + statement.lost
        assert f"${statement.spent:,.4f} for {statement.answers:,} answers" in ended.stdout
        assert "--retry refused" in ended.stdout and "2512.13015" in ended.stdout
        assert where_the_key_is(out, ended) == where_the_key_is(here.root, during) == []

        before = len(api.exchanges)
        with here.start_build(*flags(source, out), env=env(api)) as run:
            again = run.wait()
        assert again.stdout.startswith("Nothing to do")
        after = here.build("--out", str(out), "--status", env=dict.fromkeys(ONLY_KEYS, ""))
        assert f"${statement.spent:,.4f} for {statement.answers:,} answers" in after.stdout
        assert len(api.exchanges) == before
    with ClaudeApi() as api, pytest.MonkeyPatch.context() as patch:
        for name, value in api.env.items():
            patch.setenv(name, value)
        build_inline(source, tmp_path / "fair", CLAUDE, judge_budget=judge_budget())
    assert_same_dataset(tmp_path / "fair", out, CLAUDE)


def test_in_batches_it_ends_well_at_half_the_price(source: Path, here: Place, tmp_path: Path) -> None:
    """Each wave takes some seconds, so none of these clips takes a second round."""
    forty = tmp_path / "in" / "clips.csv"
    forty.parent.mkdir()
    lines = [line for line in source.read_text().splitlines(keepends=True) if not re.search("FAIL|GARBLED|BAD", line)]
    forty.write_text("".join(lines[:41]))
    (forty.parent / "film.mp4").symlink_to(source.parent / "film.mp4")
    out = tmp_path / "out"
    with ClaudeApi(batch_seconds=0.5) as api:
        ended = here.build(*flags(forty, out, "--batches"), env=env(api))
    assert ended.code == 0, ended.stderr
    assert ends(out) == {("kept", ""): 38, ("refused", "frontier_llm"): 2}
    assert [len(batch.bodies) for batch in api.batches] == [40, 39] and api.exchanges == []
    results = [json.loads(line)["result"]["message"]["usage"] for batch in api.batches for line in batch.results]
    tokens = sum(2 * usage["input_tokens"] + 10 * usage["output_tokens"] for usage in results)
    assert account(out).spent == Decimal(tokens) / 2_000_000
    assert Storage.at(out).files("calls/batches") == []
    assert_conserved(out, CLAUDE)
    assert where_the_key_is(out, ended) == where_the_key_is(here.root) == []


# ---- interrupted, killed ---------------------------------------------------------------------------------------


def test_interrupted_and_killed_it_keeps_every_answer_and_tells_what_was_spent(
    twelve: Path, here: Place, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with ClaudeApi(limits=Limits(latency=0.7)) as api:
        slowly = ("--limits.calls-at-once", "4")
        with here.start_build(*flags(twelve, out, *slowly), env=env(api)) as run:
            run.until(lambda: answered(out) >= 4 and api.in_flight >= 3)
            run.send_group(signal.SIGINT)
            ended = run.wait()
            assert run.left_behind() == []
        assert ended.code == 130, ended.stderr
        assert ended.error == "error: interrupted; all that is decided is kept; run the same command again to continue"
        assert answered(out) == len(api.paid) < 12 * 4
        assert account(out).spent == true_cost(api.exchanges) and account(out).lost == 0

        paid = len(api.paid)
        with here.start_build(*flags(twelve, out, *slowly), env=env(api)) as run:
            run.until(lambda: len(api.paid) > paid + 2 and api.in_flight >= 2)
            run.send(signal.SIGKILL)
            run.wait()
        status = here.build("--out", str(out), "--status", env=env(api))
        assert (
            ": died (last heartbeat" in status.stdout
            and f"\nnext      python pipelines/build_nsp.py --out {out}\n" in status.stdout
        )
        assert re.search(r"^spent +\$0\.\d+ for \d+ answers", status.stdout, re.M)

        api.limits = Limits()
        ended = here.build(*flags(twelve, out), env=env(api))
        assert ended.code == 0, ended.stderr
        assert account(out).spent + account(out).lost >= true_cost(api.exchanges)
    assert ends(out) == {("kept", ""): 12}
    assert_conserved(out, CLAUDE)


# ---- the budget ------------------------------------------------------------------------------------------------


def test_a_budget_that_is_too_small_is_never_passed_and_a_larger_one_goes_on(
    source: Path, here: Place, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with ClaudeApi() as api:
        ended = here.build(*flags(source, out, "--budget-usd", "0.05"), env=env(api))
        assert ended.code == 3, ended.stderr
        assert ended.error.startswith("error: the budget of $0.05 is used up: $0.0")
        assert ended.error.endswith("Raise --budget-usd") and GO_ON in ended.stderr
        statement = account(out)
        assert true_cost(api.exchanges) == statement.spent <= Decimal("0.05")
        assert statement.answers == len(api.paid) == answered(out)
        decided = ledger(out, CLAUDE)
        # What was decided by then is cut, and whole shards of it are sealed.
        asked = {row.clip_id for row in decided}
        assert 0 < len(decided) < CLIPS and problems(out, CLAUDE) != []
        assert decided[0].clip_id in (out / "report.html").read_text()
        assert " report.html" in (out / "SHA256SUMS").read_text()
        status = here.build("--out", str(out), "--status")
        assert f"{len(asked)} of {CLIPS} decided" in status.stdout
        sealed = int(re.search(r"(\d+) of 8 sealed", status.stdout)[1])  # type: ignore[index]
        assert sealed >= len(decided) // 8 - 1

        ended = here.build(*flags(source, out, "--budget-usd", "5"), env=env(api))
        assert ended.code == 1, ended.stderr
        assert sorted(api.paid) == sorted(set(api.paid)) or _only_asked_twice_on_purpose(api)
        assert account(out).spent == true_cost(api.exchanges)
    assert_conserved(out, CLAUDE)


def _only_asked_twice_on_purpose(api: ClaudeApi) -> bool:
    """The answer that nobody can read is asked for once more, in the same words."""
    twice = {digest for digest in api.paid if api.paid.count(digest) > 1}
    bodies = [json.dumps(exchange.body) for exchange in api.exchanges if exchange.digest in twice]
    return all("GARBLED" in body for body in bodies) and len(bodies) == 2 * len(twice)


# ---- what stops it ---------------------------------------------------------------------------------------------


def _closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def told(source: Path, out: Path, *more: str, env: dict[str, str]) -> tuple[int, str]:
    """How the command ends in this process, before Ray is started; nothing is made."""
    given = ["--source", str(source), "--out", str(out), *CLAUDE_FLAGS, *more]
    result = CliRunner(env=env).invoke(main, given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.stdout == "" and not out.exists()
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return result.exit_code, line


@pytest.mark.parametrize("key", ["", "   ", "sk-ant two words", "sk-ant-\u00fc"])
def test_without_a_key_it_ends_at_once_with_what_to_do(twelve: Path, tmp_path: Path, key: str) -> None:
    with ClaudeApi() as api:
        given = {"ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": key, "ANTHROPIC_AUTH_TOKEN": ""}
        code, line = told(twelve, tmp_path / "out", env=given)
        assert code == 2 and "ANTHROPIC_API_KEY" in line
        assert api.exchanges == []
        assert not key.strip() or key.strip() not in line


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("claude-3-7-sonnet-20250219", "was retired on 2026-02-19"),
        ("claude-sonnet-5-6", "is claude-sonnet-5-5 meant?"),
        ("gpt", "no price known for it"),
    ],
)
def test_a_model_without_a_price_or_a_life_is_told_at_once(
    twelve: Path, tmp_path: Path, model: str, words: str
) -> None:
    with ClaudeApi() as api:
        code, line = told(twelve, tmp_path / "out", "--model", model, env=env(api))
        assert code == 2 and words in line and model in line
        assert api.exchanges == []


@pytest.mark.parametrize("budget", ["nan", "inf"])
def test_a_budget_that_is_no_amount_is_told_at_once(twelve: Path, tmp_path: Path, budget: str) -> None:
    with ClaudeApi() as api:
        code, line = told(twelve, tmp_path / "out", "--budget-usd", budget, env=env(api))
        assert code == 2 and f"--budget-usd: {budget} is not an amount of money" in line
        assert api.exchanges == []


TROUBLES: dict[str, tuple[int, tuple[str, ...]]] = {
    "wrong key": (2, ("does not accept the key", "set ANTHROPIC_API_KEY")),
    "spend_limit": (3, ("spend limit", "raise it")),
    "not reachable": (3, ("the Claude API gave no answer for",)),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_ends_the_asking_is_one_line_with_what_to_do_and_nothing_is_lost(
    twelve: Path, here: Place, tmp_path: Path, trouble: str
) -> None:
    """Half of the clips were decided before; the same command continues once the trouble is mended."""
    out, (code, words) = tmp_path / "out", TROUBLES[trouble]
    with ClaudeApi() as api:
        _half(api, twelve, out)
        before, asked, paid = answered(out), _answers(out), list(api.paid)
        api.account = "spend_limit" if trouble == "spend_limit" else "good"
        given = env(api)
        given |= {"ANTHROPIC_API_KEY": f"{KEY}-wrong"} if trouble == "wrong key" else {}
        given |= {"ANTHROPIC_BASE_URL": _closed_port()} if trouble == "not reachable" else {}
        ended = here.build(*flags(twelve, out, "--limits.outage-seconds", "3"), env=given)
        assert ended.code == code, ended.stderr
        assert all(word in ended.error for word in words), ended.error
        assert where_the_key_is(out, ended) == where_the_key_is(here.root) == []
        assert (answered(out), _answers(out), api.paid) == (before, asked, paid)
        assert account(out).spent == true_cost(api.exchanges)
        assert Storage.at(out).stat("run.lock") is None
        assert before == 4 * 4 and len(ledger(out, CLAUDE)) == 4


def _half(api: ClaudeApi, source: Path, out: Path) -> None:
    """A run that came as far as its first unit."""
    answer = api.answer

    def until_sixteen(question: Any, tier: str) -> dict[str, Any]:
        if len(api.paid) == 15:
            api.account = "spend_limit"
        return answer(question, tier)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in api.env.items():
            patch.setenv(name, value)
        patch.setattr(api, "answer", until_sixteen)
        with pytest.raises(RunStopped):
            build_inline(source, out, CLAUDE, judge_budget=judge_budget())


def _answers(out: Path) -> set[str]:
    return {answer.request_id for answer in stored(out).values()}


# ---- other judges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        ("--model", "claude-opus-5-5"),
        ("--budget-usd", "5"),
        ("--estimate",),
        ("--estimate", "--assume", "pass_rate=0.5"),
        ("--batches",),
        ("--prices", str(REPOSITORY / "judge" / "spending" / "prices.toml")),
    ],
)
def test_what_is_for_claude_alone_is_refused_under_another_judge(
    twelve: Path, tmp_path: Path, given: tuple[str, ...]
) -> None:
    code, line = told(twelve, tmp_path / "out", "--judge", "film", *given, env={"ANTHROPIC_API_KEY": KEY})
    assert code == 2
    assert given[0] in line and "--judge claude" in line


def test_a_film_is_judged_without_key_network_or_the_sdk(here: Place, tmp_path: Path) -> None:
    """The SDK is an error to import, in every process of the run."""
    poison = tmp_path / "poison" / "anthropic"
    poison.mkdir(parents=True)
    (poison / "__init__.py").write_text("raise ImportError('judge film was to do without it')\n")
    blind = {
        "ANTHROPIC_API_KEY": "",
        "ANTHROPIC_AUTH_TOKEN": "",
        "ANTHROPIC_BASE_URL": "http://240.0.0.1:9",
        "PYTHONPATH": str(poison.parent),
    }
    check = subprocess.run(
        [sys.executable, "-c", "import anthropic"], env=here.env(blind), capture_output=True, check=False
    )
    assert b"was to do without it" in check.stderr
    source = captioned_spans(tmp_path / "in", 6)
    given = ["--source", str(source), "--out", str(tmp_path / "out"), "--judge", "film", "--test", "0"]
    ended = here.build(*given, "--unit-size", "2", env=blind)
    assert ended.code == 0, ended.stderr
    assert "6 clips, 6 decided, 5 in shards" in ended.stdout


# ---- make ------------------------------------------------------------------------------------------------------


def _make(here: Place, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Make, without a key unless one is given."""
    given = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "", **extra}
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=REPOSITORY,
        env=here.env(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_make_shards_with_claude_without_a_key_fails_before_any_download(here: Place, tmp_path: Path) -> None:
    done = _make(here, "shards", "JUDGE=claude", f"OUT={tmp_path / 'out'}", "RUN=false", "VENV=nowhere-to-be-made")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert done.returncode == 2
    assert len(lines) == 1 and "ANTHROPIC_API_KEY" in lines[0] and "JUDGE=film" in lines[0]
    assert done.stdout == ""
    assert not (tmp_path / "out").exists() and not (REPOSITORY / "nowhere-to-be-made").exists()


@pytest.mark.parametrize("judge", [(), ("JUDGE=film",), ("JUDGE=none",)])
def test_make_shards_asks_nobody_unless_it_is_told_to(here: Place, judge: tuple[str, ...]) -> None:
    """Even with a key."""
    done = _make(here, "--dry-run", "shards", *judge, ANTHROPIC_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert "--judge claude" not in done.stdout
    assert f"--judge {judge[0].partition('=')[2] if judge else 'film'}" in done.stdout
