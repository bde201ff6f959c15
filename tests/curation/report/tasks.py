"""What may happen to a child process that makes a picture, as tasks that it can load."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from nextscene.curation.report.filmstrips import Strip


class Local:
    is_local = True


@dataclass(frozen=True)
class Good(Local):
    name: str

    def strip(self) -> Strip:
        return Strip((self.name.encode(),))


@dataclass(frozen=True)
class Deadly(Local):
    def strip(self) -> Strip:
        os.kill(os.getpid(), signal.SIGSEGV)
        return Strip()


@dataclass(frozen=True)
class Endless(Local):
    def strip(self) -> Strip:
        time.sleep(600)
        return Strip()


@dataclass(frozen=True)
class Greedy(Local):
    def strip(self) -> Strip:
        return Strip((bytes(16 << 30),))
