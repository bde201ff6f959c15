"""Proving a dataset: every file against SHA256SUMS, every row and sum against what it was made from.

A hash proves that a file is the one that was written; deriving its contents again proves that what it says is so.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from curation.config import Config, flat
from curation.errors import RunStopped
from curation.ledger import Tally
from curation.plan import Plan
from curation.progress import Progress
from curation.setup import Recorded
from curation.state import State
from curation.summary import Spending, Summary, about, summarize
from curation.verify_answers import Answers
from curation.verify_shard import check_shard
from judge.account import ACCOUNT, Statement
from judge.errors import JudgeStopped
from shards import exports
from shards.index import check_index
from shards.layout import (
    CONFIG,
    INDEX,
    LEDGER,
    MANIFEST,
    PLAN,
    REPORT,
    SHARDS,
    SUMMARY,
    SUMS,
    UNIT_LEDGERS,
    ShardName,
    index,
)
from shards.receipt import DamagedRecord, Manifest, Receipt
from shards.storage import Storage
from shards.sums import Sums, file_sha256, read_sums

_RESTORE = "restore it from a copy"
_ANEW = "delete it and run the same command again to write it anew"
_SUMS_ANEW = f"delete {SUMS} and run the same command again to write it anew"
_DERIVED = "rows by plan, samples and paid answers; manifest, index, summary and cards by receipts and ledgers"
_UNCOVERED = (
    "work in progress (parts/, ledger/units/, run.lock), counts of crashes, latents/, open batches, answers that no row"
    " names"
)


@dataclass(frozen=True)
class Finding:
    """A line of the proof: something that is wrong, with its remedy, or something to know."""

    text: str
    wrong: bool = True


def verify(out: Storage, recorded: Recorded, config: Config, progress: Progress) -> Iterator[Finding]:
    """Each thing that is wrong, as one line that names file and remedy; then what was covered, and by what.

    Reads every file; `progress` is told of each shard that was looked at.
    """
    yield from _Proof(out, recorded, config).findings(progress)


class _Proof:
    """One proof. `_left` are the lines of SHA256SUMS that nothing was compared with yet; None where it is missing."""

    def __init__(self, out: Storage, recorded: Recorded, config: Config) -> None:
        self._out = out
        self._recorded = recorded
        self._config = config
        self._left: Sums | None = None
        self._hashed = 0
        self._older = 0
        self._receipts_whole = self._rows_whole = True
        self._receipts: list[Receipt] = []
        self._tally = Tally.empty()

    def findings(self, progress: Progress) -> Iterator[Finding]:
        sums_damaged = False
        try:
            self._left = read_sums(self._out)
        except DamagedRecord as damage:
            sums_damaged = True
            yield Finding(str(damage))
        roots = [*self._roots()]
        yield from map(Finding, roots)
        if roots:
            return
        plan, state = Plan(self._out, self._config), State.read(self._out, self._config.units_per_shard)
        answers = Answers(self._out)
        progress.begin(plan.clips, 0)
        for planned, clips in plan.shards():
            yield from map(Finding, self._shard(plan, state, planned, answers))
            progress.advance(clips)
            progress.tick()
        complete = state.complete(plan)
        concluded = self._left is not None or sums_damaged or (complete and self._older == len(self._receipts))
        if not concluded:
            yield Finding(f"{SUMS} is missing: the last run was not concluded; run the same command again to write it")
        else:
            yield from map(Finding, self._derived(plan, state, answers))
        yield from map(Finding, self._strangers(plan, state, concluded))
        by_older = concluded and self._left is None and not sums_damaged
        yield from (Finding(text, wrong=False) for text in self._coverage(answers, by_older))

    # ---- what all else is read by ----------------------------------------------------------------------------------

    def _roots(self) -> Iterator[str]:
        """What is wrong with plan and configuration; with these nothing else can be proved."""
        changed = self._differs(CONFIG, file_sha256(self._out, CONFIG))
        if fault := changed or self._contradiction():
            yield f"{CONFIG}: {fault}; {_RESTORE}"
        try:
            sha256 = file_sha256(self._out, PLAN)
        except FileNotFoundError:
            yield f"{PLAN} is missing; {_RESTORE}"
            return
        if sha256 != self._recorded.plan_sha256:
            yield f"{PLAN} was changed: its sha256 is not the one in {CONFIG}; {_RESTORE}"
        elif fault := self._differs(PLAN, sha256):
            yield f"{PLAN}: {fault}; {_RESTORE}"

    def _contradiction(self) -> str:
        determining, settings = self._recorded.determining, flat(self._config)
        if tomllib.loads(self._out.read(CONFIG).decode()).get("fingerprint") != self._recorded.fingerprint:
            return "its fingerprint is not that of what it says decides the dataset"
        for name in sorted(settings.keys() & determining.keys()):
            if settings[name] != determining[name]:
                return f"it gives {name} twice, as {settings[name]!r} and {determining[name]!r}"
        return ""

    # ---- shards ----------------------------------------------------------------------------------------------------

    def _shard(self, plan: Plan, state: State, planned: ShardName, answers: Answers) -> Iterator[str]:
        name = state.sealed.get((planned.split, planned.index))
        if name is None:
            self._forget(planned)
            yield f"{planned} is not sealed; run the same command again to finish it"
            return
        units = plan.units(name)
        clips = [clip for unit in units for clip in unit.clips]
        found = check_shard(self._out, self._recorded, self._config, name, clips)
        receipt = found.receipt
        if receipt is None:
            self._receipts_whole = False
            self._forget(name)
        else:
            self._receipts.append(replace(receipt, clip_ids=(), places=()))
            self._older += not receipt.ledger_sha256
            if changed := self._differs(name.receipt, file_sha256(self._out, name.receipt)):
                self._receipts_whole = False
                self._forget(name)
                found.add(name.receipt, changed)
            else:
                yield from self._lines_of(receipt)
        self._tally.add(found.rows)
        of_calls, damaged = answers.faults(units, found.rows)
        found.add(name.ledger, *of_calls)
        yield from damaged
        self._rows_whole = self._rows_whole and not found.faults
        for path, texts in found.faults.items():
            more = f" (and {len(texts) - 1:,} more)" if len(texts) > 1 else ""
            yield f"{path}: {texts[0]}{more}; {_shard_anew(name)}"

    def _lines_of(self, receipt: Receipt) -> Iterator[str]:
        """What SHA256SUMS says otherwise than a receipt, with which tar, offsets and ledger are compared."""
        for path, sha256 in receipt.sums.items():
            if path != receipt.name.receipt and (changed := self._differs(path, sha256)):
                yield f"{SUMS}: {path}: {changed}, and its receipt has another sha256; {_SUMS_ANEW}"

    def _forget(self, name: ShardName) -> None:
        """Leaves out what cannot be compared."""
        if self._left is not None:
            for path in [*self._left]:
                of = ShardName.of(path)
                if of and (of.split, of.index) == (name.split, name.index):
                    del self._left[path]

    # ---- what was made from them -----------------------------------------------------------------------------------

    def _derived(self, plan: Plan, state: State, answers: Answers) -> Iterator[str]:
        """Where receipts or ledgers are damaged, what was made from them can be compared by hash only."""
        listed = {path for path in self._left or () if path != ACCOUNT or answers.at_hand}
        wrong: dict[str, str] = {}
        made = listed
        if self._receipts_whole:
            manifest = Manifest.of(self._receipts, self._recorded.fingerprint, state.complete(plan))
            summary = summarize(plan, self._recorded, state, self._tally, manifest, 0.0, self._spending())
            cards = about(self._out, summary)
            made = {MANIFEST, SUMMARY, *map(index, manifest.splits), *exports.paths(manifest, cards)}
            made |= {ACCOUNT} if answers.at_hand else set()
            made |= {REPORT} if self._out.stat(REPORT) else set()
            if self._rows_whole:
                wrong = self._wrong_sums(manifest, summary)
            wrong |= self._wrong_lists(manifest)
        for path in sorted(made | listed):
            yield from self._made(path, path in made, wrong.get(path, ""))
        for path in sorted(self._read_by_others() - made):
            yield f"{path} does not belong to the dataset; delete it"

    def _made(self, path: str, known: bool, wrong: str) -> Iterator[str]:
        try:
            changed = self._differs(path, file_sha256(self._out, path))
        except FileNotFoundError:
            if wrong or self._left is not None or path in (MANIFEST, ACCOUNT):
                yield f"{path} is missing; {_RESTORE if path == ACCOUNT else 'run the same command again to write it'}"
            return  # of an older version, which did not write all of them
        if not known:
            yield f"{SUMS} lists {path}, which does not belong to the dataset; {_SUMS_ANEW}"
        elif wrong or changed:
            yield f"{path}: {wrong or changed}; {_RESTORE if path == ACCOUNT else _ANEW}"

    def _wrong_lists(self, manifest: Manifest) -> dict[str, str]:
        """Path → fault of what lists shards and samples."""
        wrong = {}
        for split in manifest.splits:
            try:
                check_index(self._out, manifest, split)
            except DamagedRecord as damage:
                wrong[index(split)] = str(damage)
        with suppress(FileNotFoundError):
            if not _reads_as(self._out, manifest):
                wrong[MANIFEST] = "it does not list the sealed shards as their receipts do"
        return wrong

    def _wrong_sums(self, manifest: Manifest, summary: Summary) -> dict[str, str]:
        """Path → fault of what counts outcomes."""
        found = exports.wrong(self._out, manifest, about(self._out, summary))
        wrong = dict.fromkeys(found, "it does not say what receipts and ledgers say")
        with suppress(FileNotFoundError):
            if not _counts_as(self._out.read(SUMMARY), summary):
                wrong[SUMMARY] = "it does not count what ledgers, receipts and account say"
        try:
            Statement.read(self._out)
        except JudgeStopped:
            wrong[ACCOUNT] = "it cannot be read"
        return wrong

    def _spending(self) -> Spending | None:
        """None where nothing is paid for, and where it cannot be known."""
        if self._recorded.determining["judge"] != "claude" or self._out.stat(ACCOUNT) is None:
            return None
        try:
            return Spending.read(self._out, at_work=False)
        except RunStopped:
            return None  # told as a file that was changed

    def _read_by_others(self) -> set[str]:
        """Files that other readers would take for ours."""
        folders = [*self._out.files(INDEX), *self._out.files(".nv-meta")]
        wids = [name for name in self._out.names("") if name.startswith("wids-") and name.endswith(".json")]
        return {*(entry.path for entry in folders), *wids}

    def _strangers(self, plan: Plan, state: State, concluded: bool) -> Iterator[str]:
        """Files where only the shards and ledgers of the plan should be. An unfinished run may leave more of those."""
        known = {path for name in state.sealed.values() for path in _files_of(name)}
        planned = {(name.split, name.index) for name, _ in plan.shards()}
        for folder in (SHARDS, LEDGER):
            for entry in self._out.files(folder, recursive=True):
                name = ShardName.of(entry.path)
                ours = name is not None and (name.split, name.index) in planned
                expected = ours and (entry.path in known or not concluded)
                if not expected and not entry.path.startswith(UNIT_LEDGERS):
                    yield f"{entry.path} belongs to no planned shard; delete it"

    # ---- hashes ----------------------------------------------------------------------------------------------------

    def _differs(self, path: str, sha256: str) -> str:
        """What SHA256SUMS says against a file of this hash; "" for nothing. Each line is taken once."""
        if self._left is None:
            return ""
        listed = self._left.pop(path, None)
        if listed is None:
            return f"{SUMS} does not list it"
        self._hashed += 1
        return "" if listed == sha256 else f"it is not the file that was written, by {SUMS}"

    def _coverage(self, answers: Answers, by_older: bool) -> Iterator[str]:
        if self._left is not None:
            yield f"by hash        {self._hashed:,} files, those of {SUMS}; paid answers by their names"
        if by_older:
            yield f"by hash        nothing but tars: an older version made it, without {SUMS}; the next run adds that"
        yield f"by derivation  {_DERIVED}"
        if self._older:
            yield f"               of {self._older:,} shards sealed by an older version, the ledger by derivation only"
        yield f"by neither     {_UNCOVERED}"
        yield from answers.notes()


def _reads_as(out: Storage, manifest: Manifest) -> bool:
    try:
        return Manifest.read(out) == manifest
    except DamagedRecord:
        return False


def _counts_as(data: bytes, summary: Summary) -> bool:
    """Whether it says the same, as far as it says it: its words may be another version's, which counted less."""
    wanted = json.loads(summary.to_bytes())
    try:
        found = json.loads(data)
        names = wanted.keys() & found.keys() - {"seconds", "method"}
        if summary.spending is None:
            names -= {"spending"}
        return all(found[name] == wanted[name] for name in names)
    except (ValueError, AttributeError, RecursionError):
        return False


def _files_of(name: ShardName) -> tuple[str, ...]:
    return name.tar, name.offsets, name.receipt, name.ledger


def _shard_anew(name: ShardName) -> str:
    tar, offsets, receipt, ledger = _files_of(name)
    return (
        f"restore it from a copy, or delete {tar}, {offsets}, {receipt} and {ledger}, and run the same command again to"
        " make the shard anew"
    )
