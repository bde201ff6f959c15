"""Proving what sums up a dataset, by making it again from receipts and ledgers.

Tested in tests/curation/verify/test_verify.py.
"""

from __future__ import annotations

import json
from contextlib import suppress

from nextscene.common.errors import DamagedRecord, RunStopped
from nextscene.common.storage import Storage
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.summary import BuildSummary, Spending, dataset_facts
from nextscene.judge.errors import JudgeStopped
from nextscene.judge.registry import is_paid
from nextscene.judge.spending.budget_record import ACCOUNT, BudgetRecord
from nextscene.shards import exports
from nextscene.shards.format.index import check_index
from nextscene.shards.format.layout import ENERGON, INDEX, MANIFEST, SUMMARY, index
from nextscene.shards.format.manifest import Manifest


def spending_now(out: Storage, recorded: RecordedConfig) -> Spending | None:
    """None where nothing is paid for, and where it cannot be known."""
    if not is_paid(recorded.identity_settings["judge"]) or out.stat(ACCOUNT) is None:
        return None
    try:
        return Spending.read(out, at_work=False)
    except RunStopped:
        return None  # told as a file that was changed


def wrong_lists(out: Storage, manifest: Manifest) -> dict[str, str]:
    """Path → fault of each file that does not list the shards and samples that the receipts do."""
    wrong = {}
    for split in manifest.splits:
        try:
            check_index(out, manifest, split)
        except DamagedRecord as damage:
            wrong[index(split)] = str(damage)
    with suppress(FileNotFoundError):
        if not _reads_as(out, manifest):
            wrong[MANIFEST] = "it does not list the sealed shards as their receipts do"
    return wrong


def wrong_counts(out: Storage, manifest: Manifest, summary: BuildSummary) -> dict[str, str]:
    """Path → fault of each file that does not count what receipts, ledgers and account do."""
    cards = exports.wrong(out, manifest, dataset_facts(out, summary))
    wrong = dict.fromkeys(cards, "it does not say what receipts and ledgers say")
    with suppress(FileNotFoundError):
        if not _counts_as(out.read(SUMMARY), summary):
            wrong[SUMMARY] = "it does not count what ledgers, receipts and account say"
    try:
        BudgetRecord.read(out)
    except JudgeStopped:
        wrong[ACCOUNT] = "it cannot be read"
    return wrong


def read_by_others(out: Storage) -> set[str]:
    """The files that other readers would take for those of the dataset."""
    found = {entry.path for folder in (INDEX, ENERGON) for entry in out.files(folder)}
    return found | {name for name in out.names("") if name.startswith("wids-") and name.endswith(".json")}


def _reads_as(out: Storage, manifest: Manifest) -> bool:
    try:
        return Manifest.read(out) == manifest
    except DamagedRecord:
        return False


def _counts_as(data: bytes, summary: BuildSummary) -> bool:
    """Whether it says the same, as far as it says it: its words may be another version's, which counted less."""
    wanted = json.loads(summary.to_bytes())
    unknown = {"spending"} if summary.spending is None else set()
    try:
        found = json.loads(data)
        names = wanted.keys() & found.keys() - {"seconds", "method"} - unknown
        return all(found[name] == wanted[name] for name in names)
    except (ValueError, AttributeError, RecursionError):
        return False
