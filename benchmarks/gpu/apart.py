"""Measurement of each case in a separate process, so that its memory and its failure do not affect another case."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

Figures = dict[str, Any]

_SECONDS_AT_MOST = 240.0


def figures_of(module: str, case: Mapping[str, Any], toy: bool) -> Figures:
    """Run `python -m module CASE`, and return its last line of output, parsed as JSON.

    If the process fails or takes too long, return the case with a `failure`.
    """
    line = [sys.executable, "-m", module, json.dumps(case), *(["--toy"] if toy else [])]
    try:
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, timeout=_SECONDS_AT_MOST, check=True)
    except subprocess.SubprocessError as error:
        failure = "took too long" if isinstance(error, subprocess.TimeoutExpired) else "failed"
        return {**case, "failure": failure}
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures
