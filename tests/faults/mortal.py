"""A run that kills itself with SIGKILL before its n-th change to OUT, however that change is made.

Usage: python -m tests.faults.mortal SOURCE OUT N. With N = 0 it lives, and prints how many changes it made.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shards.storage import Storage
from tests.support import SMALL, build_inline


class _Fate:
    def __init__(self, deadly: int) -> None:
        self.deadly = deadly
        self.steps = 0

    def before(self, change: Callable[..., Any]) -> Callable[..., Any]:
        """The same change, unless it is the deadly one."""

        def maybe(*arguments: Any, **options: Any) -> Any:
            self.steps += 1
            if self.steps == self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return maybe


def main() -> None:
    source, out, deadly = sys.argv[1], sys.argv[2], int(sys.argv[3])
    fate = _Fate(deadly)
    # The synced draft, its renaming, a lock's link, and a deletion: all that ever changes OUT.
    os.fsync = fate.before(os.fsync)  # type: ignore[assignment]
    os.link = fate.before(os.link)  # type: ignore[assignment]
    Path.replace = fate.before(Path.replace)  # type: ignore[method-assign]
    Storage.delete = fate.before(Storage.delete)  # type: ignore[method-assign]
    build_inline(source, out, SMALL)
    print(fate.steps)


if __name__ == "__main__":
    main()
