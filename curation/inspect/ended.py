"""The clips that ended with an outcome, or for a reason.

Tested in tests/pipelines/test_show.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from nextscene.curation.inspect.open_dataset import OpenDataset
from nextscene.curation.inspect.shard import ClipEnd, end_of
from nextscene.curation.ledger import read_ledger
from nextscene.curation.outcome import OUTCOMES

MOST_CLIPS = 1000


@dataclass(frozen=True)
class EndedClips:
    """The first `MOST_CLIPS` of the `count` clips that ended as `wanted`, an outcome or a reason."""

    wanted: str
    count: int
    clips: tuple[ClipEnd, ...]
    missing: tuple[str, ...]


def ended_clips(opened: OpenDataset, wanted: str) -> EndedClips | None:
    """Return the decided clips with an outcome or a reason; None if `wanted` is neither. Raise DamagedRecord."""
    count, clips = 0, list[ClipEnd]()
    for path, _ in opened.ledgers():
        ended = [row for row in read_ledger(opened.out, path) if wanted in (row.outcome, row.reason)]
        count += len(ended)
        clips += map(end_of, ended[: MOST_CLIPS - len(clips)])
    return EndedClips(wanted, count, tuple(clips), opened.missing) if count or wanted in OUTCOMES else None
