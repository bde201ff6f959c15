"""Progress of a build, stage by stage, on a terminal or in a log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nextscene.common.text import many
from nextscene.curation.progress import Stages
from nextscene.pipelines.cli.progress import ProgressBar, calls_in_words

if TYPE_CHECKING:
    from nextscene.judge.call_progress import CallProgress


class BuildProgress:
    """A `curation.progress.StageProgress` that shows a bar or log lines.

    The bar counts each clip once for each of its three stages, so it advances in every stage.
    """

    def __init__(self) -> None:
        self._bar = ProgressBar()
        self._planned = self._before = Stages()
        self._began = time.monotonic()

    def begin(self, planned: Stages, done: Stages) -> None:
        self._planned, self._before, self._began = planned, done, time.monotonic()
        self._bar.begin(_steps(planned), _steps(done), self._line(done, None))

    def tick(self, done: Stages, asking: CallProgress | None) -> None:
        line = self._line(done, asking)
        self._bar.show(_steps(done), line, line)

    def end(self) -> None:
        self._bar.end()

    def _line(self, done: Stages, asking: CallProgress | None) -> str:
        planned = self._planned
        rate = (done.cut - self._before.cut) / max(time.monotonic() - self._began, 1e-9)
        asked = f"; {calls_in_words(asking)}" if asking else ""
        return (
            f"screened {done.screened:,}, asked {done.asked:,}, cut {done.cut:,},"
            f" decided {done.decided:,} of {many(planned.cut, 'clip')},"
            f" sealed {done.sealed:,} of {many(planned.sealed, 'shard')}; {rate:.1f} clips a second{asked}"
        )


def _steps(stages: Stages) -> int:
    return stages.screened + stages.asked + stages.cut
