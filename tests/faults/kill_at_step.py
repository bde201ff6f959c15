"""Runs that kill themselves with SIGKILL before their n-th change to OUT, however that change is made.

Usage: python -m tests.faults.kill_at_step SOURCE JUDGE. Each line of input, `N CLIPS RETRY OUT`, starts a run in a
separate process, forked from this one, which has imported everything. With N = 0 the run is not killed. The run decides
CLIPS clips, all if CLIPS is 0, and processes clips with the outcome RETRY again ("-" for none). Its exit code and the
number of its changes are printed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig, EncodeConfig, Rules
from tests.support import SMALL, build_inline

TINY = replace(SMALL, rules=Rules(min_width=64, min_height=48), encode=EncodeConfig(width=64, height=48))
"""Settings with a picture so small that ffmpeg takes little more time than its start."""


class _Fate:
    """The kill before change number `deadly`. `steps` counts the changes, in memory shared with the parent process."""

    def __init__(self, deadly: int, steps: Any) -> None:
        self._deadly, self._steps = deadly, steps

    def before(self, change: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function `change`, with a kill of this process before its call if that is the deadly one."""

        def maybe(*arguments: Any, **options: Any) -> Any:
            self._steps.value += 1
            if self._steps.value == self._deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return maybe


def _run(source: str, out: str, config: BuildConfig, clips: int, retry: str, fate: _Fate) -> None:
    # Syncing a draft, linking a lock, renaming and deleting: these calls make all changes to OUT.
    os.fsync = fate.before(os.fsync)
    os.link = fate.before(os.link)
    Path.replace = fate.before(Path.replace)  # type: ignore[method-assign]
    Storage.delete = fate.before(Storage.delete)  # type: ignore[method-assign]
    outcomes = frozenset[str]() if retry == "-" else frozenset({retry})
    build_inline(source, out, config, outcomes, stop_after=clips or None)


def main() -> None:
    forked = multiprocessing.get_context("fork")
    source, config = sys.argv[1], replace(TINY, judge=sys.argv[2])
    for line in sys.stdin:
        deadly, clips, retry, out = line.rstrip("\n").split(" ", 3)
        steps = forked.Value("i", lock=False)
        arguments = source, out, config, int(clips), retry, _Fate(int(deadly), steps)
        run = forked.Process(target=_run, args=arguments)
        run.start()
        run.join()
        print(run.exitcode, steps.value, flush=True)


if __name__ == "__main__":
    main()
