"""What a process that ended on purpose leaves for torchrun's next start of it, and for whom it is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextscene.training.distributed.restarts import RestartNotice, delete_notice


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Torchrun:
    return Torchrun(monkeypatch)


class Torchrun:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def starts(self, job: str, count: int) -> None:
        """This process, as torchrun's environment says it."""
        self._monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
        self._monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))


def test_a_word_is_for_the_restarts_of_the_same_torchrun(torchrun: Torchrun, tmp_path: Path) -> None:
    torchrun.starts("first", 0)
    delete_notice(tmp_path)
    RestartNotice.write(tmp_path, 3, "told to stop")
    for count in (1, 2):
        torchrun.starts("first", count)
        delete_notice(tmp_path)
        assert RestartNotice.read(tmp_path) == RestartNotice("first", 3, "told to stop")
    torchrun.starts("second", 1)
    assert RestartNotice.read(tmp_path) is None


def test_a_later_torchrun_of_the_same_name_forgets_it(torchrun: Torchrun, tmp_path: Path) -> None:
    """The name of one that is given none is "none"."""
    torchrun.starts("none", 0)
    RestartNotice.write(tmp_path, 3, "told to stop")
    assert RestartNotice.read(tmp_path) is None
    delete_notice(tmp_path)
    torchrun.starts("none", 1)
    assert RestartNotice.read(tmp_path) is None


def test_without_torchrun_nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    RestartNotice.write(tmp_path, 3, "told to stop")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"job": "first"}'])
def test_what_is_no_word_of_ours_is_none(text: str, torchrun: Torchrun, tmp_path: Path) -> None:
    (tmp_path / "ended.json").write_text(text)
    torchrun.starts("first", 1)
    assert RestartNotice.read(tmp_path) is None
