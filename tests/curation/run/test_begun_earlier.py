"""A dataset that an older version began under the judge `claude`, and that this one finishes."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from nextscene.common import ffmpeg
from nextscene.common.fence import LOCK
from nextscene.common.storage import Storage
from nextscene.curation.config import CUT_VERSION
from nextscene.curation.ledger import Row
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.pipelines.cli.begun_dataset import config_of
from tests.begun.make import CLIPS, MARKED
from tests.fakes.claude_api import ClaudeApi
from tests.fakes.loopback import account, calls, files_of, stored, true_cost
from tests.fakes.without_ray import build, command, without_ray
from tests.support import REPOSITORY, assert_conserved, ledger

ARCHIVE = REPOSITORY / "tests" / "begun" / "begun.tar.gz"


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The archive, unpacked. Its lock is of a host that is not there, and for other tests."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "out" / LOCK).unlink()
    out = Storage.at(tmp_path / "out")
    recorded = RecordedConfig.read(out)
    assert recorded is not None
    # All clips are cut anew, as they are by another cut, so that they may be by another ffmpeg too.
    replace(recorded, identity_settings=recorded.identity_settings | {"ffmpeg": ffmpeg.build()}).publish(out)
    return tmp_path


def rows(out: Path) -> list[Row]:
    recorded = RecordedConfig.read(Storage.at(out))
    assert recorded is not None
    return ledger(out, config_of(recorded, Storage.at(out)))


def test_what_6f301bc_began_is_finished_and_no_question_is_asked_twice(
    begun: Path, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_ray(monkeypatch)
    out, manifest = begun / "out", begun / "source" / "clips.csv"
    before, unchanged = stored(out), files_of(out)
    assert CLIPS <= len(before) < 2 * CLIPS
    gone = command("--out", out)
    assert gone.exit_code == 3 and "is not there" in gone.stderr and "name its new place with --source" in gone.stderr
    assert files_of(out) == unchanged

    said = command("--out", out, "--source", manifest)
    assert said.exit_code == 0, said.output
    assert "the source has moved from /tmp/begun/source/clips.csv" in caplog.text
    assert "claude-sonnet-5-5 is asked, one by one, without a limit" in caplog.text

    after = stored(out)
    assert {key: answer.request_id for key, answer in before.items()} == {key: after[key].request_id for key in before}
    asked_now = len(api.exchanges)
    assert len(after) == len(before) + asked_now and len(api.paid) == len(set(api.paid))
    assert account(out).spent - sum(answer.usd for answer in before.values()) == true_cost(api.exchanges)

    ends = dict.fromkeys(range(CLIPS), ("kept", ""))
    ends |= {6: ("refused", "frontier_llm"), 9: ("dropped", "no_pass")}
    assert [(row.outcome, row.reason) for row in rows(out)] == [*ends.values()]
    for number, row in enumerate(rows(out)):
        assert row.caption == f"thing {number:02d} is seen {MARKED.get(number, '')}".strip()
        assert row.rounds == {1: 2, 6: 0, 9: 2}.get(number, 1)
        assert (row.frames, row.width, row.height) == ((4, 64, 48) if row.kept else (-1, -1, -1))
    paid = [call["key"] for row in rows(out) for call in calls(row)]
    assert sorted(paid) == sorted(after)

    recorded = RecordedConfig.read(Storage.at(out))
    assert recorded and (recorded.cut_version, recorded.begun_with_cut) == (CUT_VERSION, 1)
    assert "claude.prompt_version" not in recorded.identity_settings
    assert_conserved(out, config_of(recorded, Storage.at(out)))
    assert "The dataset is whole" in build("--out", out, "--verify")
    assert build("--out", out).startswith("Nothing to do")
    assert len(api.exchanges) == asked_now
