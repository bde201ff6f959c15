"""A check that a source at another location than the planned one is the same source."""

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
        DifferenceKind.SCENE,
        DifferenceKind.PRECEDING,
        DifferenceKind.COLUMNS,
        DifferenceKind.ORDER,
    ]
)
"""Differences that leave the clips as they were planned. All others would give other clips, or none."""


def _compare_moved(out: Storage, source: Source, judge: str) -> tuple[str, str]:
    """Return as text the differences that make it another source than the planned one, and those that do not.

    Either is "" if there are none. Contents are not read: they are checked later, clip by clip. Raise UsageError for a
    source that planning refuses.
    """
    found = differences(out, source, judge, moved=True)
    return found.told(but=_ACCEPTED), found.told(but=frozenset(DifferenceKind) - _ACCEPTED)


def find_moved_source(
    out: Storage, source: Source, config: BuildConfig, identity_settings: dict[str, Any]
) -> RecordedConfig | None:
    """Return OUT's record with the new location of a source that has moved, if it is the planned source.

    Return None if it has not moved, or if something else prevents the comparison. Write nothing into OUT. Raise
    UsageError for another source.
    """
    recorded = RecordedConfig.read(out)
    if (
        recorded is None
        or recorded.source == source.recorded_uri
        or settings_differences(recorded, identity_settings, recorded.source)
    ):
        return None
    if is_paid(recorded.identity_settings.get("judge")) and has_only_plan(out):
        return None  # it will be planned again
    try:
        Plan(out, config)
    except (FileNotFoundError, DamagedRecord):
        return None  # without a plan there is nothing to compare with
    try:
        different, others = _compare_moved(out, source, config.judge)
    except UsageError:
        return None  # such a source could not be planned
    if different:
        raise UsageError(
            f"`out` {out.display_uri} was made of {recorded.source}, and {source.display_uri} is another source:"
            f" {different}. Give the same source, or choose another `out`; if it is the same, and has both moved and"
            f" changed, give it under its old name {recorded.source}, such as by a link: then each changed file counts"
            " by itself"
        )
    stay = f"; as they were planned stay {others}" if others else ""
    _log.warning(
        "the source has moved from %s to %s; its clips are the same%s", recorded.source, source.display_uri, stay
    )
    return replace(recorded, source=source.recorded_uri)
