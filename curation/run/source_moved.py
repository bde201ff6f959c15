"""A source that lies elsewhere than where it was planned: is it the same?"""

from __future__ import annotations

from nextscene.common.storage import Storage
from nextscene.curation.run.source_changes import Kind, differences
from nextscene.curation.sources import Source

_ACCEPTED = frozenset([Kind.FOUND, Kind.CAPTION, Kind.PRECEDING, Kind.COLUMNS, Kind.ORDER])
"""What stays as it was planned. All else would make other clips, or none."""


def differences_of_moved(out: Storage, source: Source, judge: str) -> tuple[str, str]:
    """What makes it another source than the one planned, and what else is other in it, in words; "" for nothing.

    Reads no contents, which are looked at clip by clip. Raises UsageMistake for what planning refuses.
    """
    found = differences(out, source, judge, moved=True)
    return found.told(but=_ACCEPTED), found.told(but=frozenset(Kind) - _ACCEPTED)
