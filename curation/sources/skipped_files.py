"""Files of a source that give no clip, counted by suffix."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath

HIDDEN, NO_SUFFIX, LINKS, SPARSE, OTHERS = "hidden", "without a suffix", "links and devices", "sparse", "other suffixes"
NOT_UTF8 = "with a name that is not UTF-8"
NO_ROW = "that no row names"
MAX_KINDS = 64
_SUFFIX = re.compile(r"\.[a-z0-9][a-z0-9_+-]{0,11}")


class SkippedFiles:
    """Numbers of skipped files by suffix, in memory that does not grow with the number of files.

    Suffixes are in lower case. Those that do not look like a suffix, and all beyond MAX_KINDS, count as OTHERS. Counted
    by kind instead are names that begin with a dot, names without a suffix, names that are not UTF-8, in tars also
    links, devices and sparse files, and videos that no row of a table names. A hidden folder, or one whose name is not
    UTF-8, counts as one and is not searched.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count a file by the last part of its path."""
        name = name.rpartition("/")[2]
        if name.startswith("."):
            self.add_kind(HIDDEN)
            return
        suffix = PurePosixPath(name).suffix.lower()
        self.add_kind(NO_SUFFIX if not suffix else suffix if _SUFFIX.fullmatch(suffix) else OTHERS)

    def add_kind(self, kind: str) -> None:
        self.add_counts({kind: 1})

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add the counts of another part of the source."""
        for kind, count in counts.items():
            known = kind in self._counts or len(self._counts) < MAX_KINDS
            self._counts[kind if known else OTHERS] += count

    def __str__(self) -> str:
        return format_counts(self.counts)

    @property
    def counts(self) -> dict[str, int]:
        """Return kind → number of files, the most frequent first."""
        return dict(sorted(self._counts.items(), key=lambda entry: (-entry[1], entry[0])))


def format_counts(counts: Mapping[str, int]) -> str:
    """Return the counts in words: `3 .gif, 1 hidden`."""
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())


def skipped_line(counts: Mapping[str, int] | None) -> str:
    """Return the counts as a line for a terminal. `counts` is None if the plan has none."""
    if counts is None:
        return "not counted, by the version that made this plan"
    return f"passed over in the source: {format_counts(counts) or 'nothing'}"
