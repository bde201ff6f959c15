"""Overview of a dataset: its judge, the outcomes of its clips, its size.

Tested in tests/curation/inspect/test_inspect.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from nextscene.common.errors import DamagedRecord, RunStopped
from nextscene.common.parquet import read_table
from nextscene.common.run_lock import holder, is_running
from nextscene.curation.inspect.open_dataset import OpenDataset
from nextscene.curation.inspect.sample import SampleReader
from nextscene.curation.ledger import Tally
from nextscene.curation.outcome import OUTCOMES
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.sealing.retry import open_retry
from nextscene.curation.sealing.retry_advice import RetryAdvice, accepted_retries
from nextscene.curation.summary import BuildSummary, Spending
from nextscene.judge.registry import JUDGES, is_paid
from nextscene.judge.spending.answer_segments import CALLS
from nextscene.shards.format.layout import MANIFEST, SHARDS
from nextscene.shards.format.receipt import Receipt


@dataclass(frozen=True)
class SplitSize:
    """The size of one split: its sealed shards that have samples, these samples, and the bytes of the tars."""

    split: str
    shards: int
    samples: int
    bytes: int


@dataclass(frozen=True)
class LockHolder:
    """The run that has the dataset's lock; `alive` is True if its process still runs."""

    run_id: str
    host: str
    pid: int
    alive: bool


@dataclass(frozen=True)
class DatasetOverview:
    """The facts about a dataset. `planned` clips and `outcomes` (outcome, reason, clips) are None if no file has them.

    `complete` is True if every planned shard is sealed. `retries` are those that may help and that a build accepts.
    `example` is the key of the first sample, "" if there is none; `missing` names the files and folders that a whole
    dataset has and this one lacks.
    """

    judge: str
    method: str
    complete: bool
    planned: int | None
    outcomes: tuple[tuple[str, str, int], ...] | None
    splits: tuple[SplitSize, ...]
    spending: Spending | None
    runner: LockHolder | None
    retries: tuple[RetryAdvice, ...]
    example: str
    missing: tuple[str, ...]

    def count(self, *outcomes: str) -> int:
        return sum(count for outcome, _, count in self.outcomes or () if outcome in outcomes)

    @property
    def decided(self) -> int:
        return self.count(*OUTCOMES)


def dataset_overview(opened: OpenDataset) -> DatasetOverview:
    """Return the overview. Raise DamagedRecord, DamagedShard, StorageFault.

    Raise FileNotFoundError for a file that a run has just moved.
    """
    summary = _summary(opened)
    ends = None if summary else _ends(opened)
    first = _first_receipt(opened)
    judge = _judge(opened, summary, first)
    outcomes = _outcomes(summary, ends)
    lock = holder(opened.out)
    further = {MANIFEST: opened.manifest is not None, CALLS: opened.has_calls or not is_paid(judge)}
    runner = LockHolder(lock.run_id, lock.host, lock.pid, is_running(opened.out)) if lock else None
    return DatasetOverview(
        judge=judge,
        method=JUDGES[judge].method if judge in JUDGES else "",
        complete=_complete(opened),
        planned=opened.plan.clips if opened.plan else summary.planned if summary else None,
        outcomes=outcomes,
        splits=tuple(_sizes(opened, ends)),
        spending=_spending(opened, judge, runner),
        runner=runner,
        retries=tuple(_retries(opened, outcomes)),
        example=first.clip_ids[0] if first else "",
        missing=opened.missing + tuple(name for name, is_there in further.items() if not is_there),
    )


_Ends = Counter[tuple[str, str, str, bool]]
"""(split, outcome, reason, True in a sealed shard) → number of clips."""


def _complete(opened: OpenDataset) -> bool:
    if opened.plan:
        return opened.state.complete(opened.plan)
    return opened.manifest is not None and opened.manifest.complete


def _summary(opened: OpenDataset) -> BuildSummary | None:
    """Return the summary of the last run if that run finished the dataset; else None, and the ledgers are counted."""
    if opened.manifest is None or not opened.manifest.complete:
        return None
    return BuildSummary.read(opened.out)


def _ends(opened: OpenDataset) -> _Ends | None:
    """Return the counts of the ledgers; None if there are no ledgers."""
    if not opened.has_ledger:
        return None
    counts: _Ends = Counter()
    for path, sealed in opened.ledgers():
        table = read_table(opened.out, path)
        try:
            columns = [table[name].to_pylist() for name in ("split", "outcome", "reason")]
        except (KeyError, UnicodeDecodeError) as error:
            raise DamagedRecord(f"{path} is not a ledger of this version") from error
        counts.update((split, outcome, reason, sealed) for split, outcome, reason in zip(*columns, strict=True))
    if unknown := {outcome for _, outcome, _, _ in counts} - {*OUTCOMES}:
        raise DamagedRecord(f"the ledger ends a clip in {min(unknown)!r}, which is not an outcome")
    return counts


def _retries(opened: OpenDataset, outcomes: tuple[tuple[str, str, int], ...] | None) -> list[RetryAdvice]:
    recorded = RecordedConfig.read(opened.out)
    return accepted_retries(outcomes or (), recorded.cut_version, open_retry(opened.out)) if recorded else []


def _outcomes(summary: BuildSummary | None, ends: _Ends | None) -> tuple[tuple[str, str, int], ...] | None:
    if ends is None:
        return summary.outcomes if summary else None
    tally = Tally.empty()
    for (_, outcome, reason, _), count in ends.items():
        tally.by_reason[outcome, reason] = tally.by_reason.get((outcome, reason), 0) + count
    return tuple(tally.lines())


def _sizes(opened: OpenDataset, ends: _Ends | None) -> list[SplitSize]:
    """Return the sizes by the manifest; if it is not complete, those of the shards that are sealed now."""
    manifest = opened.manifest
    if ends is None or (manifest and manifest.complete):
        return _added((shard.split, 1, shard.count, shard.bytes) for shard in (manifest.shards if manifest else ()))
    held = {entry.path: entry.size for entry in opened.out.files(SHARDS, recursive=True)}
    tars = [(name.split, 1, 0, held[name.tar]) for name in opened.state.sealed.values() if name.tar in held]
    samples = [
        (split, 0, count, 0) for (split, outcome, _, sealed), count in ends.items() if sealed and outcome == "kept"
    ]
    return _added(tars + samples)


def _added(parts: Iterable[tuple[str, int, int, int]]) -> list[SplitSize]:
    """Return the sums of (split, shards, samples, bytes) by split."""
    sums: dict[str, SplitSize] = {}
    for split, shards, samples, size in parts:
        so_far = sums.get(split, SplitSize(split, 0, 0, 0))
        sums[split] = SplitSize(split, so_far.shards + shards, so_far.samples + samples, so_far.bytes + size)
    return list(sums.values())


def _first_receipt(opened: OpenDataset) -> Receipt | None:
    """Return the receipt of the first sealed shard with a sample; None if there is none."""
    receipts = (Receipt.read(opened.out, name) for name in opened.state.sealed.values())
    return next((receipt for receipt in receipts if receipt.count), None)


def _judge(opened: OpenDataset, summary: BuildSummary | None, first: Receipt | None) -> str:
    """Return the name of the judge, from the first sample if no other file has it; "" if it is not known."""
    if opened.config:
        return opened.config.judge
    if summary or first is None:
        return summary.judge if summary else ""
    return SampleReader(opened.out, first).read(0).record.judge


def _spending(opened: OpenDataset, judge: str, runner: LockHolder | None) -> Spending | None:
    if not is_paid(judge) or not opened.has_calls:
        return None
    try:
        return Spending.read(opened.out, runner is not None and runner.alive)
    except RunStopped as damage:
        raise DamagedRecord(str(damage)) from damage
