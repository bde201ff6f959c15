"""A key that the API does not accept is told before a single clip is screened, and nobody else is asked about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.claude_api import ClaudeApi
from tests.fakes.claude_api.checks import check_countable
from tests.fakes.claude_api.errors import ServerError
from tests.fakes.loopback import CLAUDE_FLAGS, spans
from tests.fakes.without_ray import build, command

WRONG = "sk-ant-wrong-9876543210"


pytestmark = pytest.mark.usefixtures("inline")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spans(tmp_path_factory.mktemp("source"), ["a dog barks", "a cat sleeps"])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the API was asked to count the tokens of."""
    seen: list[str] = []

    def check(body: object, models: object) -> None:
        seen.append(str(body))
        check_countable(body, models)  # type: ignore[arg-type]

    monkeypatch.setattr("tests.fakes.claude_api.routes.check_countable", check)
    return seen


@pytest.mark.parametrize("more", [(), ("--batches",), ("--budget-usd", "5"), ("--stop-after", "1")])
@pytest.mark.usefixtures("api")
def test_it_is_told_before_anything_is_planned(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", WRONG)
    ended = command("--source", source, "--out", tmp_path / "out", *CLAUDE_FLAGS, *more)
    assert (ended.exit_code, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: the API does not accept the key (HTTP 401") and WRONG not in line
    assert "set ANTHROPIC_API_KEY to a valid one" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("api")
def test_nobody_is_asked_about_it_where_nothing_is_to_be_asked(
    source: Path, tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, new = tmp_path / "out", ("--source", source, "--out", tmp_path / "new")
    build("--source", source, "--out", out, *CLAUDE_FLAGS)
    assert len(counted) == 1
    monkeypatch.setenv("ANTHROPIC_API_KEY", WRONG)
    assert build("--out", out).startswith("Nothing to do")
    build("--out", out, "--status")
    build("--out", out, "--verify")
    build(*new, *CLAUDE_FLAGS, "--estimate")
    build(*new, "--judge", "none")
    assert len(counted) == 1


def test_stored_answers_need_no_key_that_is_valid(
    api: ClaudeApi, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("--source", source, "--out", tmp_path / "out", *CLAUDE_FLAGS)
    asked = len(api.exchanges)
    (tmp_path / "new").mkdir()
    (tmp_path / "out" / "calls").rename(tmp_path / "new" / "calls")
    monkeypatch.setenv("ANTHROPIC_API_KEY", WRONG)
    build("--source", source, "--out", tmp_path / "new", *CLAUDE_FLAGS, "--budget-usd", "none")
    assert len(api.exchanges) == asked


def _missing(*_: object) -> None:
    raise ServerError(404, "Not found")


def _overloaded(*_: object) -> None:
    raise ServerError(529, "Overloaded")


@pytest.mark.parametrize("counts", [_missing, _overloaded])
@pytest.mark.usefixtures("api")
def test_an_address_that_counts_no_tokens_is_asked_all_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Callable[..., None]
) -> None:
    monkeypatch.setattr("tests.fakes.claude_api.routes.check_countable", counts)
    assert "2 in shards" in build("--source", source, "--out", tmp_path / "out", *CLAUDE_FLAGS)
