"""The environment of child processes that read untrusted files: without keys, tokens and credentials."""

from __future__ import annotations

import os
import sys

_KEPT = frozenset(
    "DYLD_LIBRARY_PATH HOME LANG LANGUAGE LC_ALL LC_COLLATE LC_CTYPE LC_MESSAGES LC_MONETARY LC_NUMERIC LC_TIME"
    " LD_LIBRARY_PATH PATH PYTHONHOME PYTHONPATH TMPDIR TZ".split()
)
_NOT_OF_STORAGE = ("ANTHROPIC_", "RAY_")


def own_python_environment() -> dict[str, str]:
    """Return this process's environment for a Python program that imports what this process can import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def clean_environment() -> dict[str, str]:
    """Return only the variables that a program needs to start and to find its libraries."""
    return {name: value for name, value in os.environ.items() if name in _KEPT}


def clean_python_environment() -> dict[str, str]:
    """Return `clean_environment` for a Python program that imports what this process can import."""
    return {**clean_environment(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def storage_environment() -> dict[str, str]:
    """Return the environment of a Python program that reads object stores: without the keys of the judge."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OF_STORAGE)}
    return {**ours, **clean_python_environment()}
