"""What may happen to a child process that makes a picture, as tasks that it can load."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from nextscene.curation.report.filmstrips import Filmstrip


class Local:
    is_local = True


@dataclass(frozen=True)
class Good(Local):
    name: str

    def make(self) -> Filmstrip:
        return Filmstrip((self.name.encode(),))


@dataclass(frozen=True)
class Deadly(Local):
    def make(self) -> Filmstrip:
        os.kill(os.getpid(), signal.SIGSEGV)
        return Filmstrip()


@dataclass(frozen=True)
class Endless(Local):
    def make(self) -> Filmstrip:
        time.sleep(600)
        return Filmstrip()


@dataclass(frozen=True)
class Greedy(Local):
    def make(self) -> Filmstrip:
        return Filmstrip((bytes(16 << 30),))
