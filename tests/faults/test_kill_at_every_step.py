"""A run that is killed before any of its changes to OUT, and resumed, makes the dataset of an undisturbed run."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.sealing.committed import CommittedState
from tests.faults.kill_at_step import TINY
from tests.support import (
    REPOSITORY,
    assert_conserved,
    assert_same_clips,
    assert_same_dataset,
    build_inline,
    captioned_spans,
    ledger,
    problems,
)

pytestmark = pytest.mark.slow


RunUntilKill = Callable[..., tuple[int, int]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a source of five clips, for shards of two units and of one: each kind of change is made more than once."""
    return captioned_spans(tmp_path_factory.mktemp("source"), 5, seconds=0.125, size="64x48")


@contextmanager
def runs_killed_at_step(source: Path, judge: str) -> Iterator[RunUntilKill]:
    """Yield a function that runs a build, killed before one of its changes; it returns exit code and changes made."""
    command = [sys.executable, "-m", "tests.faults.kill_at_step", str(source), judge]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True) as runs:

        def run(out: Path, deadly: int, clips: int = 0, retry: str = "-") -> tuple[int, int]:
            print(deadly, clips, retry, out, file=runs.stdin, flush=True)
            assert runs.stdout is not None
            code, steps = map(int, runs.stdout.readline().split())
            return code, steps

        yield run


@pytest.fixture
def run_until_kill(source: Path) -> Iterator[RunUntilKill]:
    with runs_killed_at_step(source, TINY.judge) as run:
        yield run


def test_killed_before_each_change_a_resumed_run_is_as_if_undisturbed(
    source: Path, run_until_kill: RunUntilKill, tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed"
    code, steps = run_until_kill(undisturbed, 0)
    assert code == 0
    assert steps > 40
    for deadly in range(1, steps + 1):
        out = tmp_path / f"killed-{deadly}"
        assert run_until_kill(out, deadly) == (-signal.SIGKILL, deadly)
        assert_told_as_unfinished(out)
        build_inline(source, out, TINY)
        assert_same_dataset(undisturbed, out, TINY)
        assert_conserved(out, TINY)
        assert leftovers(out) == [], f"after a kill before change {deadly}"


def test_killed_while_a_shard_is_sealed_as_it_stands_nothing_is_lost(
    source: Path, run_until_kill: RunUntilKill, tmp_path: Path
) -> None:
    """The shard has one clip and gets two more, as its next revision. Every sixth change is sample enough."""
    undisturbed, begun = tmp_path / "undisturbed", tmp_path / "begun"
    build_inline(source, undisturbed, TINY)
    build_inline(source, begun, TINY, stop_after=1)
    _, steps = run_until_kill(shutil.copytree(begun, tmp_path / "counted"), 0, 2)
    assert steps > 20
    for deadly in range(3, steps + 1, 6):
        out = shutil.copytree(begun, tmp_path / f"killed-{deadly}")
        assert run_until_kill(out, deadly, 2) == (-signal.SIGKILL, deadly)
        assert_told_as_unfinished(out)
        build_inline(source, out, TINY, stop_after=1)
        build_inline(source, out, TINY)
        assert_same_clips(undisturbed, out, TINY)
        assert_conserved(out, TINY)
        assert leftovers(out) == [], f"after a kill before change {deadly}"


def test_a_retry_killed_before_every_other_change_seals_no_shard_twice(tmp_path: Path) -> None:
    """Each shard has clips that are dropped again: a shard done twice would be sealed again, at a higher revision."""
    config, dropped = replace(TINY, judge="film"), frozenset({"dropped"})
    source = captioned_spans(tmp_path / "source", 5, seconds=0.125, size="64x48")
    source.write_text(source.read_text().replace("wordb thingb", "worda thinga"))
    source.write_text(re.sub("word[de] thing[de]", "wordc thingc", source.read_text()))
    begun, undisturbed = tmp_path / "begun", tmp_path / "undisturbed"
    build_inline(source, begun, config)
    assert [row.outcome for row in ledger(begun, config)] == ["rejected", "dropped", "kept", "dropped", "dropped"]
    with runs_killed_at_step(source, config.judge) as run_until_kill:
        code, steps = run_until_kill(shutil.copytree(begun, undisturbed), 0, retry="dropped")
        assert code == 0
        assert steps > 40
        assert {name.revision for name in CommittedState.read(Storage.at(undisturbed), 2).sealed.values()} == {1}
        for deadly in range(1, steps + 1, 2):
            out = shutil.copytree(begun, tmp_path / f"killed-{deadly}")
            assert run_until_kill(out, deadly, retry="dropped") == (-signal.SIGKILL, deadly)
            assert_told_as_unfinished(out, config)
            if deadly % 4 == 1:
                build_inline(source, out, config)  # this does not change the retry
            build_inline(source, out, config, dropped)
            assert_same_dataset(undisturbed, out, config)
            assert_conserved(out, config)
            assert leftovers(out) == [], f"after a kill before change {deadly}"


def assert_told_as_unfinished(out: Path, config: BuildConfig = TINY) -> None:
    """Check that `--verify` reports the state that a killed run left as unfinished, and not as damage."""
    if RecordedConfig.read(Storage.at(out)) is not None:
        for problem in problems(out, config):
            assert "run the build again" in problem and "delete" not in problem, problem


def leftovers(out: Path) -> list[str]:
    """Return the files that should exist only while a run works."""
    inside = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    known = {entry.path for entry in Storage.at(out).files(recursive=True)}
    working = ("parts/", "ledger/units/", "run.lock", "retry.json")
    return sorted(inside - known | {path for path in inside if path.startswith(working)})
