"""The peak memory of a process, for the benchmarks that run in one of their own."""

from __future__ import annotations

import re
from pathlib import Path


def peak_bytes() -> int:
    """Return the peak of this program alone: Linux's `ru_maxrss` also includes the process that started it."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) << 10
