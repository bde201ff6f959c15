"""A source that lies elsewhere than where it was planned: is it the same?"""

from __future__ import annotations

from nextscene.common.storage import Storage
from nextscene.curation.run.source_changes import DifferenceKind, differences
from nextscene.curation.sources import Source

_ACCEPTED = frozenset(
    [
        DifferenceKind.FOUND,
        DifferenceKind.CAPTION,
        DifferenceKind.PRECEDING,
        DifferenceKind.COLUMNS,
        DifferenceKind.ORDER,
    ]
)
"""What stays as it was planned. All else would make other clips, or none."""


def compare_moved(out: Storage, source: Source, judge: str) -> tuple[str, str]:
    """What makes it another source than the one planned, and what else is other in it, in words; "" for nothing.

    Reads no contents, which are looked at clip by clip. Raises UsageError for what planning refuses.
    """
    found = differences(out, source, judge, moved=True)
    return found.told(but=_ACCEPTED), found.told(but=frozenset(DifferenceKind) - _ACCEPTED)
