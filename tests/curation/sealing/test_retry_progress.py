"""What a run tells of its progress while a retry does anew what was decided: never more than there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextscene.curation.progress import Stages
from nextscene.curation.run.run import BuildRequest, build
from nextscene.judge.call_progress import CallProgress
from tests.faults.kill_at_step import TINY
from tests.support import build_inline, make_video, write_csv

pytestmark = pytest.mark.slow

PLANNED = Stages(6, 6, 6, 2, 6)


class Recorder:
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.begun: list[Stages] = []
        self.told: list[Stages] = []

    def begin(self, planned: Stages, done: Stages) -> None:
        assert planned == PLANNED
        self.begun.append(done)

    def tick(self, done: Stages, asking: CallProgress | None) -> None:
        self.told.append(done)


def test_a_retry_counts_what_it_does_anew_as_not_done(tmp_path: Path) -> None:
    make_video(tmp_path / "0.mp4", 0.125, "64x48")
    rows = [{"video": f"{number}.mp4", "caption": f"number {number}"} for number in range(6)]
    source, out = write_csv(tmp_path / "clips.csv", rows), tmp_path / "out"
    build_inline(source, out, TINY)
    for number in range(1, 3):
        make_video(tmp_path / f"{number}.mp4", 0.125, "64x48")
    progress = Recorder()
    build(BuildRequest(str(source), str(out), TINY, workers=1, retry=frozenset({"absent"})), progress)
    assert progress.begun == [PLANNED, Stages(1, 1, 1, 0, 1)]
    assert progress.told[-1] == PLANNED
    assert all(getattr(told, name) <= getattr(PLANNED, name) for told in progress.told for name in vars(PLANNED))
