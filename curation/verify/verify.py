"""Verification of a dataset: each file against SHA256SUMS, each row and sum against the data that it was made from.

A hash proves that a file is the one that was written; deriving its contents again proves that they are correct.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace

from nextscene.common.config_loader import flat
from nextscene.common.errors import DamagedRecord
from nextscene.common.hashing import file_sha256
from nextscene.common.storage import Storage
from nextscene.common.text import many
from nextscene.curation.config import BuildConfig
from nextscene.curation.ledger import Tally
from nextscene.curation.plan import Plan
from nextscene.curation.progress import ProofProgress
from nextscene.curation.recorded_config import RecordedConfig
from nextscene.curation.sealing.committed import CommittedState
from nextscene.curation.sealing.retry import OpenRetry
from nextscene.curation.summary import dataset_facts, summarize
from nextscene.curation.verify.answers import Answers
from nextscene.curation.verify.derived import read_by_others, spending_now, wrong_counts, wrong_lists
from nextscene.curation.verify.finding import (
    Finding,
    note,
    to_build,
    to_delete,
    to_list_anew,
    to_make_anew,
    to_restore,
    to_write_anew,
)
from nextscene.curation.verify.shard import check_shard
from nextscene.judge.registry import is_paid
from nextscene.judge.spending.budget_record import ACCOUNT
from nextscene.shards import exports
from nextscene.shards.format.checksums import NOT_LISTED, ListedChecksums, read_checksums
from nextscene.shards.format.folder_mark import DATASET, NotOurs, check
from nextscene.shards.format.layout import (
    CHECKSUMS,
    CONFIG,
    LEDGER,
    MANIFEST,
    MARK,
    PLAN,
    REPORT,
    RETRY,
    SHARDS,
    SUMMARY,
    UNIT_LEDGERS,
    ShardName,
    index,
)
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import Receipt

_DERIVED = "rows by plan, samples and paid answers; manifest, index, summary and cards by receipts and ledgers"
_UNCOVERED = (
    "work in progress (parts/, ledger/units/, run.lock, retry.json), counts of crashes, open batches, latents/, answers"
    " that no row names"
)


def verify(out: Storage, recorded: RecordedConfig, config: BuildConfig, progress: ProofProgress) -> Iterator[Finding]:
    """Yield each fault, as one line that names file and remedy; then notes on what was verified, and by what.

    Read every file, and report each verified shard to `progress`.
    """
    try:
        sums = read_checksums(out)
        is_there = sums is not None
    except DamagedRecord as damage:
        sums, is_there = None, True
        yield Finding(str(damage), delete=(CHECKSUMS,), build=True)
    try:
        OpenRetry.read(out)
    except DamagedRecord as damage:
        yield Finding(f"{damage}; delete it, and the next `retry` begins anew", delete=(RETRY,))
    proof = _Proof(out, recorded, config, ListedChecksums(sums))
    yield from proof.mark()
    if roots := [*proof.roots()]:
        yield from roots
        return
    plan, state = Plan(out, config), CommittedState.read(out, config.units_per_shard)
    progress.begin(plan.clips, 0)
    for planned, clips in plan.shards():
        yield from proof.shard(plan, state, planned)
        progress.advance(clips)
        progress.tick()
    by_older = not is_there and proof.by_older
    concluded = state.complete(plan) and (is_there or by_older)
    if concluded:
        yield from proof.derived(plan, state)
    elif is_there:
        yield from proof.listed()
    else:
        yield to_build(f"{CHECKSUMS} is missing: the last run was not concluded; run the build again to write it")
    yield from proof.books()
    yield from proof.strangers(plan, state, concluded)
    yield from map(note, proof.coverage(by_older))


class _Proof:
    """One verification, with the data read for it: receipts without their samples, and the counts of the ledgers."""

    def __init__(self, out: Storage, recorded: RecordedConfig, config: BuildConfig, listed: ListedChecksums) -> None:
        self._out = out
        self._recorded = recorded
        self._config = config
        self._listed = listed
        self._answers = Answers(out)
        self._receipts: list[Receipt] = []
        self._tally = Tally.empty()
        self._receipts_whole = self._rows_whole = True

    @property
    def by_older(self) -> bool:
        """Return whether an older version sealed all shards."""
        return bool(self._receipts) and not any(receipt.ledger_sha256 for receipt in self._receipts)

    def mark(self) -> Iterator[Finding]:
        """Yield a fault if the mark is not a dataset's. A missing one is not a fault: older versions wrote none."""
        try:
            check(self._out, DATASET)
        except NotOurs:
            yield to_write_anew(MARK, "it is not the mark of a dataset")

    def roots(self) -> Iterator[Finding]:
        """Yield what is wrong with plan and configuration. If anything is, nothing else can be verified."""
        changed = self._listed.fault(CONFIG, file_sha256(self._out, CONFIG))
        if fault := changed or self._contradiction():
            yield _listed_or(fault, f"{CONFIG}: {fault}")
        try:
            sha256 = file_sha256(self._out, PLAN)
        except FileNotFoundError:
            yield to_build(
                f"{PLAN} is missing; restore it from a copy, or run the build again to make it of the same source anew"
            )
            return
        if sha256 != self._recorded.plan_sha256:
            yield to_restore(f"{PLAN} was changed: its sha256 is not the one in {CONFIG}")
        elif fault := self._listed.fault(PLAN, sha256):
            yield _listed_or(fault, f"{PLAN}: {fault}")

    def _contradiction(self) -> str:
        identity_settings, settings = self._recorded.identity_settings, flat(self._config)
        if tomllib.loads(self._out.read(CONFIG).decode()).get("fingerprint") != self._recorded.fingerprint:
            return "its fingerprint is not that of what it says decides the dataset"
        for name in sorted(settings.keys() & identity_settings.keys()):
            if settings[name] != identity_settings[name]:
                return f"it gives {name} twice, as {settings[name]!r} and {identity_settings[name]!r}"
        return ""

    def shard(self, plan: Plan, state: CommittedState, planned: ShardName) -> Iterator[Finding]:
        name = state.sealed.get((planned.split, planned.index))
        if name is None:
            yield to_build(f"{planned} is not sealed; run the build again to finish it")
            return
        units = plan.units(name)
        clips = [clip for unit in units for clip in unit.clips]
        is_partial = name in state.partial
        found = check_shard(self._out, self._recorded, self._config, name, clips, is_partial)
        if is_partial:
            yield to_build(
                f"{name} is sealed with {len(found.rows):,} of its {many(len(clips), 'clip')}, the others are not"
                " decided; run the build again to add them"
            )
        if found.receipt:
            self._receipts.append(replace(found.receipt, clip_ids=(), places=()))
            changed = self._listed.fault(name.receipt, file_sha256(self._out, name.receipt))
            if changed == NOT_LISTED:
                yield to_list_anew(f"{name.receipt}: {changed}")
            elif changed:
                found.add(name.receipt, changed)
            else:
                yield from self._lines_of(found.receipt)
        found.add(name.ledger, *self._answers.faults(found.rows))
        self._tally.add(found.rows)
        self._rows_whole &= not found.faults
        self._receipts_whole &= name.receipt not in found.faults
        for path, faults in found.faults.items():
            more = f" (and {len(faults) - 1:,} more)" if len(faults) > 1 else ""
            yield to_make_anew(name, path, f"{faults[0]}{more}")

    def _lines_of(self, receipt: Receipt) -> Iterator[Finding]:
        """Yield where SHA256SUMS differs from a receipt. Tar, offsets and ledger are compared with the receipt."""
        for path, sha256 in receipt.checksums.items():
            if path != receipt.name.receipt and (changed := self._listed.fault(path, sha256)):
                yield to_list_anew(f"{CHECKSUMS}: {path}: {changed}, and its receipt has another sha256")

    def books(self) -> Iterator[Finding]:
        """Yield what is wrong with the paid answers and the record of their cost."""
        return self._answers.books()

    def derived(self, plan: Plan, state: CommittedState) -> Iterator[Finding]:
        """Yield what is wrong with the files made from the shards; by hash only, if receipts are damaged."""
        if not self._receipts_whole:
            yield from self.listed()
            return
        recorded = self._recorded
        manifest = Manifest.of(self._receipts, recorded.fingerprint, state.complete(plan), recorded.schema_version)
        spending = spending_now(self._out, self._recorded)
        summary = summarize(plan, self._recorded, state, self._tally, manifest, 0.0, spending)
        wrong = wrong_lists(self._out, manifest)
        wrong |= wrong_counts(self._out, manifest, summary) if self._rows_whole else {}
        made = {MANIFEST, SUMMARY, *map(index, manifest.splits)} | exports.paths(
            manifest, dataset_facts(self._out, summary)
        )
        made |= {ACCOUNT} if is_paid(summary.judge) and self._answers.at_hand else set()
        made |= {REPORT} if REPORT in self._listed.left or self._out.stat(REPORT) else set()
        for path in sorted(made):
            yield from self._made(path, wrong.get(path, ""))
        for path in sorted(self._still_listed() - made):
            yield to_list_anew(f"{CHECKSUMS} lists {path}, which does not belong to the dataset")
        for path in sorted(read_by_others(self._out) - made):
            yield to_delete(path, "does not belong to the dataset")

    def listed(self) -> Iterator[Finding]:
        """Yield what is wrong with the files that summarize the dataset, by hash only.

        To be used if there is nothing to derive them from.
        """
        for path in sorted(path for path in self._still_listed() if ShardName.of(path) is None):
            yield from self._made(path, "")

    def _still_listed(self) -> set[str]:
        """Return what SHA256SUMS lists and was not compared yet, without the budget record if no answers are in OUT."""
        return {path for path in self._listed.left if path != ACCOUNT or self._answers.at_hand}

    def _made(self, path: str, wrong: str) -> Iterator[Finding]:
        try:
            fault = self._listed.fault(path, file_sha256(self._out, path))
        except FileNotFoundError:
            # An older version did not write all of these files.
            if wrong or path in self._listed.left or path in (MANIFEST, ACCOUNT):
                missing = f"{path} is missing"
                yield (
                    to_restore(missing) if path == ACCOUNT else to_build(f"{missing}; run the build again to write it")
                )
            return
        if not wrong and fault == NOT_LISTED:
            yield to_list_anew(f"{path}: {fault}")
        elif wrong or fault:
            lost = wrong or fault
            yield to_restore(f"{path}: {lost}") if path == ACCOUNT else to_write_anew(path, lost)

    def strangers(self, plan: Plan, state: CommittedState, concluded: bool) -> Iterator[Finding]:
        """Yield files in the folders of shards and ledgers that do not belong there.

        An unfinished run may leave other files of planned shards there.
        """
        empty = {receipt.name for receipt in self._receipts if not receipt.count}
        known = {path for name in state.sealed.values() for path in _files_of(name, name in empty)}
        known |= {name.partial for name in state.partial}
        planned = {(name.split, name.index) for name, _ in plan.shards()}
        for folder in (SHARDS, LEDGER):
            for entry in self._out.files(folder, recursive=True):
                name = ShardName.of(entry.path)
                ours = name is not None and (name.split, name.index) in planned
                expected = ours and (entry.path in known or not concluded)
                if not expected and not entry.path.startswith(f"{UNIT_LEDGERS}/"):
                    yield to_delete(entry.path, "belongs to no planned shard")

    def coverage(self, by_older: bool) -> Iterator[str]:
        if by_older:
            yield f"by hash        tars only: an older version made it, without {CHECKSUMS}; the next run adds that"
        elif self._listed.compared:
            yield f"by hash        {self._listed.compared:,} of the {self._listed.total:,} files that {CHECKSUMS} lists"
        yield f"by derivation  {_DERIVED}"
        if older := sum(not receipt.ledger_sha256 for receipt in self._receipts):
            yield f"               of {many(older, 'shard')} sealed by an older version, the ledger by derivation only"
        yield f"by neither     {_UNCOVERED}"
        if self._config.judge_kind.pays:
            yield from self._answers.notes()


def _files_of(name: ShardName, is_empty: bool = False) -> tuple[str, ...]:
    """Return the files of a sealed shard: a shard without clips has no tar and no offsets."""
    return (name.receipt, name.ledger) if is_empty else (name.tar, name.offsets, name.receipt, name.ledger)


def _listed_or(fault: str, text: str) -> Finding:
    """Return the finding of a file that SHA256SUMS does not list, or that only a copy restores."""
    return to_list_anew(text) if fault == NOT_LISTED else to_restore(text)
