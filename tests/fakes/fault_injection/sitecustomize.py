"""A start-up module that injects faults into a run's processes. Python imports it by its name from PYTHONPATH.

It changes modules when they are imported, and does nothing unless one of these variables is set:
  FAULT_LOG         a video whose last bytes are `KILLS-WORKER` or `HANGS-WORKER` kills or hangs the worker that has its
                    headers read; each time a line is added to the log file that this variable names
  FAULT_HOLD        a video that ends with `HOLDS-WORKER` hangs as well
  FAULT_TRIES       the most tries of a storage operation that fails, so that a test waits less than a user would
  FAULT_NO_RAY      importing ray is an error
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


def _screen(module: Any) -> None:
    measure = module.HEADER_READER.measure
    hangs = [b"HANGS-WORKER", *([b"HOLDS-WORKER"] if "FAULT_HOLD" in os.environ else [])]

    def fault_injected(file: Path, limits: Any) -> Any:
        end = file.read_bytes()[-12:]
        if end in (b"KILLS-WORKER", *hangs):
            with Path(os.environ["FAULT_LOG"]).open("a") as log:
                log.write(f"{end.decode()} {os.getpid()}\n")
            if end == b"KILLS-WORKER":
                os.kill(os.getpid(), signal.SIGKILL)
            while True:
                time.sleep(1)
        return measure(file, limits)

    module.HEADER_READER.measure = fault_injected


def _storage(module: Any) -> None:
    stop = module.stop_after_attempt
    module.stop_after_attempt = lambda tries: stop(min(tries, int(os.environ["FAULT_TRIES"])))


def _ray(module: Any) -> None:
    raise ImportError("this run was to do without Ray")


_CHANGES: dict[str, Callable[[Any], None]] = {}
if "FAULT_LOG" in os.environ:
    _CHANGES["nextscene.curation.stages.screen"] = _screen
if "FAULT_TRIES" in os.environ:
    _CHANGES["nextscene.common.filesystem"] = _storage
if "FAULT_NO_RAY" in os.environ:
    _CHANGES["ray"] = _ray


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        change = _CHANGES.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def changed(module: ModuleType) -> None:
                run(module)
                change(module)

            spec.loader.exec_module = changed  # type: ignore[method-assign]
        return spec


if _CHANGES:
    sys.meta_path.insert(0, _Finder())
