"""Each case in a process of its own, so that neither its memory nor its failure is another case's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

Figures = dict[str, Any]

_SECONDS_AT_MOST = 240.0


def figures_of(module: str, case: Mapping[str, Any], toy: bool) -> Figures:
    """What `python -m module CASE` prints last, as JSON; of one that fails, the case and how."""
    line = [sys.executable, "-m", module, json.dumps(case), *(["--toy"] if toy else [])]
    try:
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, timeout=_SECONDS_AT_MOST, check=True)
    except subprocess.SubprocessError as error:
        failure = "took too long" if isinstance(error, subprocess.TimeoutExpired) else "failed"
        return {**case, "failure": failure}
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures
