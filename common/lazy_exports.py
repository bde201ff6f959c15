"""Public names of a package that are imported when they are first used.

Tested in tests/test_package.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

INSTALL_TRAINER = "install nextscene[train]: pip install 'nextscene[train]', in a clone pip install '.[train]'"


def lazy_exports(package: str, module_of: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package; `module_of` maps each name to its module in the package.

    `__getattr__` raises ModuleNotFoundError, which says how to install it, for a name that needs a missing package.
    """

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{package}.{module_of[name]}"), name)
        except ModuleNotFoundError as error:
            how = f"{package}.{name} needs {error.name}, which is not installed; {INSTALL_TRAINER}"
            raise ModuleNotFoundError(how, name=error.name) from error

    def names() -> list[str]:
        return sorted({*vars(import_module(package)), *module_of})

    return get, names
