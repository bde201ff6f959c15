"""An open retry: its outcomes, and the revisions of its shards when it began, so that it can be resumed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

from nextscene.common.errors import DamagedRecord, UsageError
from nextscene.common.prefetch import prefetch_map
from nextscene.common.storage import Storage
from nextscene.common.strict_json import check_types, parse_json
from nextscene.curation.ledger import read_ledger
from nextscene.curation.outcome import OUTCOMES
from nextscene.curation.sealing.committed import CommittedState
from nextscene.shards.format.layout import RETRY, ShardName

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenRetry:
    """The contents of `retry.json`, which exists from the start of a retry until all of its work is done.

    Each of the `shards` has a clip to be processed again. They are named by the revision sealed when the retry began.
    """

    outcomes: frozenset[str]
    shards: tuple[ShardName, ...]

    @staticmethod
    def read(out: Storage) -> OpenRetry | None:
        """Return the open retry; None if there is none. Raise DamagedRecord."""
        try:
            value = check_types(parse_json(out.read(RETRY)), {"outcomes": list, "shards": list})
            outcomes = frozenset(outcome for outcome in OUTCOMES if outcome in value["outcomes"])
            if not outcomes or len(outcomes) < len(value["outcomes"]):
                raise ValueError(f"it names {value['outcomes']!r:.100}")
            return OpenRetry(outcomes, tuple(_shard_of(path) for path in value["shards"]))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DamagedRecord(f"{RETRY} is damaged ({error})") from error

    def publish(self, out: Storage) -> None:
        value = {"outcomes": sorted(self.outcomes), "shards": [shard.receipt for shard in self.shards]}
        out.write(RETRY, json.dumps(value).encode())

    @property
    def argument(self) -> str:
        """Return the argument of a build that continues the retry, and its value, as messages name them."""
        return f"`retry` {self.words}"

    @property
    def words(self) -> str:
        return ",".join(sorted(self.outcomes))

    def is_pending(self, sealed: ShardName) -> bool:
        """Return whether the retry still has to process a shard, given the shard's sealed revision."""
        revision = self._revisions.get((sealed.split, sealed.index))
        return revision is not None and sealed.revision <= revision

    @cached_property
    def _revisions(self) -> dict[tuple[str, int], int]:
        return {(shard.split, shard.index): shard.revision for shard in self.shards}


def _shard_of(path: object) -> ShardName:
    shard = ShardName.of(path) if isinstance(path, str) else None
    if shard is None or path != shard.receipt:
        raise ValueError(f"{path!r:.100} is not a receipt")
    return shard


def open_retry(out: Storage) -> OpenRetry | None:
    """Return the open retry; None also if it is damaged, which `check_open_retry` reports."""
    try:
        return OpenRetry.read(out)
    except DamagedRecord:
        return None


def check_open_retry(out: Storage, outcomes: frozenset[str]) -> None:
    """Raise UsageError if a retry of other outcomes than `outcomes` is open, or if the record of it is damaged.

    A run without a retry leaves the open one as it is, and logs a warning.
    """
    try:
        retry = OpenRetry.read(out)
    except DamagedRecord as damage:
        remedy = f"{damage}; delete it, and the next `retry` begins anew, also with what this one had done"
        if outcomes:
            raise UsageError(f"`out` {out.display_uri}: {remedy}") from damage
        _log.warning("%s", remedy)
        return
    if retry is None or retry.outcomes == outcomes:
        return
    if outcomes:
        raise UsageError(
            f"`out` {out.display_uri} has an unfinished {retry.argument}; give that first, to finish it, or delete"
            f" {out.display_uri}/{RETRY} to give it up"
        )
    _log.warning(
        "%s has an unfinished %s; this run leaves it so: `out` %s %s continues",
        out.display_uri,
        retry.argument,
        out.display_uri,
        retry.argument,
    )


def start_or_resume_retry(out: Storage, state: CommittedState, outcomes: frozenset[str]) -> OpenRetry | None:
    """Return the open retry, or a new one, recorded before any of its work; None if no clip has such an outcome."""
    if retry := OpenRetry.read(out):
        return retry
    if shards := tuple(_shards_with(out, state, outcomes)):
        retry = OpenRetry(outcomes, shards)
        retry.publish(out)
    return retry


def _shards_with(out: Storage, state: CommittedState, outcomes: frozenset[str]) -> Iterator[ShardName]:
    sealed = sorted(state.sealed.values())
    ledgers = prefetch_map(partial(read_ledger, out), [shard.ledger for shard in sealed])
    for shard, rows in zip(sealed, ledgers, strict=True):
        if any(row.outcome in outcomes for row in rows):
            yield shard


def end_retry(out: Storage) -> None:
    """Delete the record of the open retry, once all its shards are sealed and summarized."""
    out.delete(RETRY)
