"""The summary of a dataset, always counted again from the ledgers and receipts in OUT.

Tested in tests/curation/verify/test_verify.py.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

from nextscene.common.errors import DamagedRecord, RunStopped
from nextscene.common.hashing import file_sha256
from nextscene.common.storage import Storage
from nextscene.curation.ledger import RETIMED, Tally
from nextscene.curation.outcome import NEEDS_ATTENTION
from nextscene.curation.plan import Plan
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.sealing.committed import CommittedState
from nextscene.judge.api.batch_record import BatchRecord
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.registry import JUDGES, is_paid
from nextscene.judge.spending.budget_record import ACCOUNT, BudgetRecord
from nextscene.judge.spending.stored_answers import StoredAnswers
from nextscene.shards import exports
from nextscene.shards.exports.energon import INDEX as ENERGON_INDEX
from nextscene.shards.format.checksums import Checksums, read_checksums
from nextscene.shards.format.index import publish_indexes
from nextscene.shards.format.layout import CARD, CHECKSUMS, CONFIG, LEDGER, MANIFEST, PLAN, SHARDS, SUMMARY, index
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import Receipt

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spending:
    """Paid answers and their cost in US dollars. `lost_usd` may have been charged for answers that never arrived.

    `in_batches` counts the questions of batches that have not been collected.
    """

    answers: int
    spent_usd: float
    lost_usd: float
    in_batches: int

    @staticmethod
    def read(out: Storage, at_work: bool) -> Spending:
        """Read the budget record. While a run is `at_work`, its open calls are not lost. Raise RunStopped if the record
        is damaged.
        """
        try:
            batches = BatchRecord.read_all(out)
            record = BudgetRecord.read(out)
            if record is None or (record.is_open and not at_work):
                stored = StoredAnswers(out)
                worst = sum((batch.worst for batch in batches), Decimal(0))
                record = (record or BudgetRecord()).reconciled(stored.spent, stored.count, worst)
        except JudgeStopped as damage:
            raise RunStopped(str(damage)) from damage
        waiting = sum(len(batch.questions) for batch in batches)
        return Spending(record.answers, float(record.spent), float(record.lost), waiting)


_BEFORE: dict[str, Any] = {"passed_over": None, "retimed": 0, "shards_partial": 0}
"""Values for the fields that summaries of older versions lack."""


@dataclass(frozen=True)
class BuildSummary:
    """Counts of a dataset: `summary.json`. `outcomes` are (outcome, reason, count); `bytes` is the size of all tars.

    `shards_partial` counts the sealed shards that have undecided clips.
    `passed_over` counts the files of the source that gave no clip, by suffix; None if the plan did not count them.
    `retimed` counts the clips whose file has another modification time than planned.
    `spending` is None for a judge that costs nothing.
    """

    judge: str
    method: str
    fingerprint: str
    planned: int
    outcomes: tuple[tuple[str, str, int], ...]
    passed_over: dict[str, int] | None
    retimed: int
    shards_planned: int
    shards_sealed: int
    tars: int
    samples: int
    bytes: int
    seconds: float
    complete: bool
    spending: Spending | None
    shards_partial: int = 0

    @property
    def decided(self) -> int:
        return sum(count for _, _, count in self.outcomes)

    def count(self, *outcomes: str) -> int:
        return sum(count for outcome, _, count in self.outcomes if outcome in outcomes)

    @property
    def balanced(self) -> bool:
        """Return whether no clip is lost or double: planned = all outcomes + undecided, kept = samples in shards."""
        is_all = self.decided == self.planned if self.complete else self.decided < self.planned
        return is_all and self.count("kept") == self.samples

    @property
    def keeps_nothing(self) -> bool:
        """Return whether every clip is decided and none is kept."""
        return self.complete and not self.count("kept")

    def needs_attention(self, partial: bool = False) -> bool:
        """Return whether something is to be looked after. In a `partial` source, absent files are expected."""
        unexpected = self.count(*NEEDS_ATTENTION) - (self.count("absent") if partial else 0)
        return not self.balanced or self.keeps_nothing or unexpected > 0

    @staticmethod
    def read(out: Storage) -> BuildSummary | None:
        """Return the summary of the last run; None if no run has finished. Raise DamagedRecord for an invalid file."""
        try:
            value = json.loads(out.read(SUMMARY))
            if not isinstance(value["planned"], int) or not isinstance(value["judge"], str):
                raise ValueError("its judge must be a string, and its planned clips an integer")
            outcomes = tuple((str(outcome), str(reason), int(count)) for outcome, reason, count in value["outcomes"])
            spending = None if value["spending"] is None else Spending(**value["spending"])
            numbers = {"tars": int(value["tars"]), "bytes": int(value["bytes"]), "seconds": float(value["seconds"])}
            known = {field.name: value[field.name] for field in fields(BuildSummary) if field.name in value}
            return BuildSummary(**{**_BEFORE, **known, **numbers, "outcomes": outcomes, "spending": spending})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedRecord(f"{SUMMARY} is not a summary: {error}") from error

    def to_bytes(self) -> builtins.bytes:
        return (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode()


def summarize(
    plan: Plan,
    recorded: RecordedConfig,
    state: CommittedState,
    tally: Tally,
    manifest: Manifest,
    seconds: float,
    spending: Spending | None,
) -> BuildSummary:
    """Return the summary of the shards that are sealed now."""
    judge = recorded.identity_settings["judge"]
    return BuildSummary(
        judge=judge,
        method=JUDGES[judge].method,
        fingerprint=recorded.fingerprint,
        planned=plan.clips,
        outcomes=tuple(tally.lines()),
        passed_over=plan.passed_over,
        retimed=tally.remarks[RETIMED],
        shards_planned=sum(1 for _ in plan.shards()),
        shards_sealed=len(state.sealed),
        tars=len(manifest.shards),
        samples=sum(shard.count for shard in manifest.shards),
        bytes=sum(shard.bytes for shard in manifest.shards),
        seconds=round(seconds, 1),
        complete=manifest.complete,
        spending=spending,
        shards_partial=len(state.partial),
    )


def dataset_facts(out: Storage, summary: BuildSummary) -> exports.DatasetFacts:
    """Return the facts for the dataset card and the other readers' metadata."""
    title = PurePosixPath(out.display_uri).name
    return exports.DatasetFacts(
        title, summary.judge, summary.method, JUDGES[summary.judge].is_language_model, summary.outcomes
    )


def sums_of_last_run(out: Storage) -> Checksums:
    """Return the checksums of the last run; an empty dict if the file is missing or was changed."""
    try:
        return read_checksums(out) or {}
    except DamagedRecord:
        return {}


def publish_summary(
    out: Storage,
    plan: Plan,
    recorded: RecordedConfig,
    state: CommittedState,
    tally: Tally,
    seconds: float,
    before: Mapping[str, str],
) -> tuple[BuildSummary, Checksums | None]:
    """Publish the manifest, the indexes and exports that readers expect, and the summary of what is sealed now.

    Return the summary, and the checksums that SHA256SUMS is to list beside that of the page. The checksums are None if
    nothing changed, so that SHA256SUMS stays as it is. `before` are the checksums that it listed before the run.
    """
    sums: Checksums = {}
    receipts = _listed(state.receipts(out), sums)
    manifest = Manifest.of(receipts, recorded.fingerprint, state.complete(plan), recorded.schema_version)
    spending = Spending.read(out, at_work=False) if is_paid(recorded.identity_settings["judge"]) else None
    summary = summarize(plan, recorded, state, tally, manifest, seconds, spending)
    changed = _changed(out, before)
    if before and out.stat(CHECKSUMS) and not changed:
        return summary, None
    out.delete(CHECKSUMS)
    if CARD in changed:
        _set_aside(out, CARD)
    kept = {ENERGON_INDEX, *map(index, manifest.splits)}
    # These were never listed, were changed, or are gone: their contents are not known to be right.
    for path in kept - before.keys() | kept & changed:
        out.delete(path)
    sums |= {path: before[path] for path in kept & before.keys()}
    sums |= publish_indexes(out, manifest)
    manifest.publish(out)
    sums |= exports.publish(out, manifest, dataset_facts(out, summary))
    out.write(SUMMARY, summary.to_bytes())
    for path, data in ((MANIFEST, manifest.to_bytes()), (SUMMARY, summary.to_bytes())):
        sums[path] = hashlib.sha256(data).hexdigest()
    sums |= {PLAN: recorded.plan_sha256, CONFIG: before.get(CONFIG) or file_sha256(out, CONFIG)}
    if out.stat(ACCOUNT):
        sums[ACCOUNT] = file_sha256(out, ACCOUNT)
    return summary, sums


def _listed(receipts: Iterable[Receipt], sums: Checksums) -> Iterator[Receipt]:
    for receipt in receipts:
        sums |= receipt.checksums
        yield receipt


def _changed(out: Storage, sums: Mapping[str, str]) -> set[str]:
    """Return the summary files that are not as they were written. Shards and ledgers are checked elsewhere."""
    return {
        path for path, sha256 in sums.items() if not path.startswith((SHARDS, LEDGER)) and _hash(out, path) != sha256
    }


def _hash(out: Storage, path: str) -> str:
    try:
        return file_sha256(out, path)
    except FileNotFoundError:
        return ""


def _set_aside(out: Storage, path: str) -> None:
    """Keep a copy of a file that somebody edited, under another name, before it is written again."""
    with suppress(FileNotFoundError):
        data = out.read(path)
        aside = PurePosixPath(path).with_stem(
            f"{PurePosixPath(path).stem}.edited-{hashlib.sha256(data).hexdigest()[:8]}"
        )
        if data:
            out.write(str(aside), data)
            _log.warning("%s was edited, and is written anew; what stood there is in %s", path, aside)
