"""A start-up module that makes a process see a simulated machine. Python imports it by its name from PYTHONPATH.

It does nothing unless SIMULATED_MACHINE is set: `CLOCKS_FILE|HOST|BOOT_ID|CONTAINER`.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        from tests.clocks.shim import MODULES, of_environment

        self._left = set(MODULES)
        self._found = of_environment()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._left or self._found is None:
            return None
        self._left.remove(name)
        machine, clocks = self._found
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def changed(module: ModuleType) -> None:
                run(module)
                machine.put_into(module, clocks)

            spec.loader.exec_module = changed  # type: ignore[method-assign]
        return spec


if "SIMULATED_MACHINE" in os.environ:
    sys.meta_path.insert(0, _Finder())
