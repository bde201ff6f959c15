"""A retry that is killed at any of its last changes: the next run leaves no file that is older than the ledgers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nextscene.common.fence import LOCK
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.pipelines.cli.begun_dataset import config_of
from nextscene.shards.format.layout import CHECKSUMS, REPORT
from tests.fakes.without_ray import build, command, without_ray
from tests.support import ledger, make_video, problems, write_csv

LAST = 4
"""The number of changes at the end of a retry: summary, page, SHA256SUMS, retry.json."""
FLAGS = ("--judge", "none", "--test", "0", "--unit-size", "2", "--units-per-shard", "2", "--workers", "1")
TINY = ("--rules.min-width", "64", "--rules.min-height", "48", "--encode.width", "64", "--encode.height", "48")


class Killed(BaseException):
    """An exception in place of SIGKILL: it is never caught, and nothing is changed after it."""


class Fate:
    """A limit on changes to OUT: after `changes` of them, each further one raises Killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, changes: int) -> None:
        self.left, self.made = changes, 0
        for name in ("atomic_writer", "delete", "create", "take_over", "compare_and_swap"):
            monkeypatch.setattr(Storage, name, self._before(getattr(Storage, name)))

    def _before(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(storage: Storage, path: str, *arguments: Any) -> Any:
            if path != LOCK:
                if not self.left:
                    raise Killed
                self.left, self.made = self.left - 1, self.made + 1
            return change(storage, path, *arguments)

        return maybe


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a dataset of three clips, one of which had no file when it was built, but has one now."""
    folder = tmp_path_factory.mktemp("late")
    for name in ("a", "b"):
        make_video(folder / "in" / f"{name}.mp4", 0.25, "64x48")
    rows = [{"video": f"{name}.mp4", "caption": f"caption {name}"} for name in ("a", "b", "later")]
    source = write_csv(folder / "in" / "clips.csv", rows)
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        build("--source", source, "--out", folder / "out", *FLAGS, *TINY, code=1)
    make_video(folder / "in" / "later.mp4", 0.25, "64x48")
    return folder


def changes_of_a_retry(out: Path, most: int) -> int:
    """Retry the absent clips, killed after at most `most` changes, and return the number of changes."""
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        fate = Fate(patch, most)
        with suppress(Killed):
            build("--out", out, "--retry", "absent")
        (out / LOCK).unlink(missing_ok=True)
    return fate.made


def config_of_out(out: Path) -> BuildConfig:
    recorded = RecordedConfig.read(Storage.at(out))
    assert recorded is not None
    return config_of(recorded, Storage.at(out))


def test_the_next_run_makes_anew_whatever_is_older_than_the_ledgers(
    late: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes that the source cannot be reached by then: it is not needed."""
    changes = changes_of_a_retry(shutil.copytree(late / "out", tmp_path / "whole"), 10_000)
    assert changes > LAST
    without_ray(monkeypatch)
    (late / "in").rename(late / "away")
    for made in range(changes - LAST, changes):
        out = tmp_path / str(made)
        shutil.copytree(late / "out", out)
        (late / "away").rename(late / "in")
        assert changes_of_a_retry(out, made) == made
        (late / "in").rename(late / "away")
        said = command("--out", out)
        assert said.exit_code in (0, 1) and "was not compared" in said.stdout, (made, said.output)
        config, place = config_of_out(out), Storage.at(out)
        page, ends = place.read(REPORT), [row.outcome for row in ledger(out, config)]
        assert page.count(b"kept") == ends.count("kept") and page.count(b"absent") == ends.count("absent"), made
        assert (out / CHECKSUMS).exists() and problems(out, config) == [], made
