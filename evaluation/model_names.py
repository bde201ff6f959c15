"""Names of models in an evaluation, which are also names of folders.

Tested in tests/evaluation/test_run.py, and tests/pipelines/test_evaluate.py.
"""

from __future__ import annotations

import re

from nextscene.common.fence import LOCK
from nextscene.shards.format.layout import MARK, REPORT, SUMMARY

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = ("account.json", "batches", "calls", LOCK, MARK, REPORT, SUMMARY)


def explain_bad_name(name: str) -> str:
    """Return why a model cannot have this name; "" if it can."""
    if not _NAME.fullmatch(name):
        return "a name is of letters, digits, dots, hyphens and underscores"
    return f"the name {name} is taken; give each model one of its own" if name in _RESERVED else ""
