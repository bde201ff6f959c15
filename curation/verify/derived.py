"""Verification of the files that summarize a dataset, by deriving them again from receipts and ledgers.

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
    """Return the spending as recorded now; None if nothing is paid for, or if it cannot be known."""
    if not is_paid(recorded.identity_settings["judge"]) or out.stat(ACCOUNT) is None:
        return None
    try:
        return Spending.read(out, at_work=False)
    except RunStopped:
        return None  # reported as a file that was changed


def wrong_lists(out: Storage, manifest: Manifest) -> dict[str, str]:
    """Return path → fault for each file that does not list the same shards and samples as the receipts."""
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
    """Return path → fault for each file whose counts differ from those of receipts, ledgers and budget record."""
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
    """Return the files that other readers would take for files of the dataset."""
    found = {entry.path for folder in (INDEX, ENERGON) for entry in out.files(folder)}
    return found | {name for name in out.names("") if name.startswith("wids-") and name.endswith(".json")}


def _reads_as(out: Storage, manifest: Manifest) -> bool:
    try:
        return Manifest.read(out) == manifest
    except DamagedRecord:
        return False


def _counts_as(data: bytes, summary: BuildSummary) -> bool:
    """Return whether all values in `data` that both versions know are those of the summary.

    Another version may have written fewer values. Seconds and the description of the method are not compared.
    """
    wanted = json.loads(summary.to_bytes())
    unknown = {"spending"} if summary.spending is None else set()
    try:
        found = json.loads(data)
        names = wanted.keys() & found.keys() - {"seconds", "method"} - unknown
        return all(found[name] == wanted[name] for name in names)
    except (ValueError, AttributeError, RecursionError):
        return False
