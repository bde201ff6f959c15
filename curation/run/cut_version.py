"""Rules for datasets begun with an older version of the cut: one OUT never mixes clips of two versions."""

from __future__ import annotations

import logging

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.config import CUT_VERSION, BuildConfig
from nextscene.curation.plan import Plan
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sealing.seal_shard import discard_shard, discard_unit
from nextscene.shards.format.layout import (
    CHECKSUMS,
    LEDGER,
    MANIFEST,
    PARTS,
    REPORT,
    SHARDS,
    SUMMARY,
    UNIT_LEDGERS,
    ShardName,
    UnitName,
)

_log = logging.getLogger(__name__)


def needs_recut(out: Storage, config: BuildConfig, version: int, retry: bool) -> bool:
    """Return whether the clips in OUT, which the cut's `version` made, must be discarded before work continues.

    A finished dataset is left as it is. Raise UsageError for a finished dataset that `retry` would add clips to, and
    for a version that is newer than this one.
    """
    if version > CUT_VERSION:
        raise UsageError(
            f"`out` {out.display_uri} was cut by a newer version of this program; install that, or a newer one"
        )
    if version == CUT_VERSION:
        return False
    if not CommittedState.read(out, config.units_per_shard).complete(Plan(out, config)):
        return True
    if retry:
        raise UsageError(
            f"`out` {out.display_uri} was finished by an older version, which cut clips in another way, and `retry`"
            f" would mix the two; build into another `out`, with a copy of {out.display_uri}/calls in it no answer is"
            " paid for again"
        )
    return False


def discard_clips(out: Storage) -> None:
    """Delete all shards, ledgers and parts of an unfinished OUT, and log a warning.

    The plan, the paid answers, and the crash counts of units without a ledger or part are kept.
    """
    _log.warning(
        "%s was begun by an older version, which cut clips in another way: all its clips are cut anew;"
        " stored answers are used again, nothing is asked twice",
        out.display_uri,
    )
    for summing_up in (CHECKSUMS, MANIFEST, SUMMARY, REPORT):
        out.delete(summing_up)
    for folder in (UNIT_LEDGERS, PARTS):
        for entry in out.files(folder):
            if unit := UnitName.of(entry.path):
                discard_unit(out, unit)
    for folder in (SHARDS, LEDGER):
        for entry in out.files(folder, recursive=True):
            if shard := ShardName.of(entry.path):
                discard_shard(out, shard)
