"""A source that lies elsewhere than where it was planned: is it the same?"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from nextscene.common.errors import DamagedRecord, UsageError
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.plan import Plan
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.run.existing_plan import has_only_plan, settings_differences
from nextscene.curation.run.source_changes import DifferenceKind, differences
from nextscene.curation.sources import Source
from nextscene.judge.registry import is_paid

_log = logging.getLogger(__name__)

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


def _compare_moved(out: Storage, source: Source, judge: str) -> tuple[str, str]:
    """What makes it another source than the one planned, and what else is other in it, in words; "" for nothing.

    Reads no contents, which are looked at clip by clip. Raises UsageError for what planning refuses.
    """
    found = differences(out, source, judge, moved=True)
    return found.told(but=_ACCEPTED), found.told(but=frozenset(DifferenceKind) - _ACCEPTED)


def find_moved_source(
    out: Storage, source: Source, config: BuildConfig, identity_settings: dict[str, Any]
) -> RecordedConfig | None:
    """Return OUT's record with the place of a source that has moved, if it is the one that was planned.

    None where it has not moved, or something else is not as it was. Writes nothing into OUT. Raises UsageError for
    another source.
    """
    recorded = RecordedConfig.read(out)
    if (
        recorded is None
        or recorded.source == source.display_uri
        or settings_differences(recorded, identity_settings, recorded.source)
    ):
        return None
    if is_paid(recorded.identity_settings.get("judge")) and has_only_plan(out):
        return None  # it is planned anew
    try:
        Plan(out, config)
    except (FileNotFoundError, DamagedRecord):
        return None  # and then nothing says what was planned
    try:
        different, others = _compare_moved(out, source, config.judge)
    except UsageError:
        return None  # it could not be planned at all
    if different:
        raise UsageError(
            f"--out {out.display_uri} was made of {recorded.source}, and {source.display_uri} is another source:"
            f" {different}. Give the same source, or choose another --out"
        )
    stay = f"; as they were planned stay {others}" if others else ""
    _log.warning(
        "the source has moved from %s to %s; its clips are the same%s", recorded.source, source.display_uri, stay
    )
    return replace(recorded, source=source.display_uri)
