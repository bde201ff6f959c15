"""The layout of a dataset: the paths of all files below OUT. No other module composes them.

Tested in tests/shards/format/test_receipt.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nextscene.common.fence import LOCK

PLAN = "plan.parquet"
CONFIG = "config.toml"
MANIFEST = "manifest.json"
SUMMARY = "summary.json"
REPORT = "report.html"
RETRY = "retry.json"
MARK = "nextscene.json"
CHECKSUMS = "SHA256SUMS"
CARD = "README.md"
CROISSANT = "croissant.json"

SHARDS = "shards"
INDEX = "index"
LEDGER = "ledger"
UNIT_LEDGERS = "ledger/units"
PARTS = "parts"
CRASHES = "parts/crashes"
LATENTS = "latents"
CALLS = "calls"  # the answers that were paid for, of `judge.spending.answer_cache`
TERMS = "calls/terms.json"
ENERGON = ".nv-meta"

SPLITS = ("train", "test")

_SHARDS_PER_FOLDER = 1000
_SHARD_FILE = re.compile(r"[a-z]+/(?P<split>[a-z]+)/\d{3,}/nsp-(?P<index>\d{6,})(?:-r(?P<revision>\d+))?\..+")
_UNIT_FILE = re.compile(r"(?:.+/)?(?P<split>[a-z]+)-(?P<index>\d{8,})(?:-r(?P<revision>\d+))?\.[a-z]+")
_SHARD_PART = re.compile(rf"{PARTS}/(?P<split>[a-z]+)/nsp-(?P<index>\d{{6,}})(?:-r(?P<revision>\d+))?")
_PROBE = re.compile(r"\.probe-[0-9a-f]{32}")
_CALL = re.compile(rf"{CALLS}/(?:account\.json|index\.npz|prompts\.json|terms\.json|.+\.jsonl?\.gz)")


def index(split: str) -> str:
    return f"{INDEX}/{split}.parquet"


def wids(split: str) -> str:
    return f"wids-{split}.json"


def owns(path: str) -> bool:
    """Return whether this package writes a file of that name below OUT, so that it may be deleted or replaced."""
    if path in _FIXED or _CALL.fullmatch(path) or _PROBE.fullmatch(path):
        return True
    return ShardName.of(path) is not None or UnitName.of(path) is not None


@dataclass(frozen=True, order=True)
class ShardName:
    """One shard of a split. A retry seals the shard again under the next `revision`."""

    split: str
    index: int
    revision: int = 0

    def __str__(self) -> str:
        return f"{self.split}/{self._stem}"

    @property
    def tar(self) -> str:
        return f"{SHARDS}/{self._folder}/{self._stem}.tar"

    @property
    def offsets(self) -> str:
        return f"{self.tar}.idx"

    @property
    def receipt(self) -> str:
        return f"{SHARDS}/{self._folder}/{self._stem}.receipt.json"

    @property
    def partial(self) -> str:
        """Return the path of the mark of a shard sealed before all its clips were decided. It is written first."""
        return f"{SHARDS}/{self._folder}/{self._stem}.partial"

    @property
    def ledger(self) -> str:
        return f"{LEDGER}/{self._folder}/{self._stem}.parquet"

    @property
    def part(self) -> str:
        """Return the path at which the shard is assembled if it is not made of units."""
        return f"{PARTS}/{self}"

    @property
    def files(self) -> tuple[str, ...]:
        """Return all files of the shard, the receipt last."""
        return self.part, self.partial, self.tar, self.offsets, self.ledger, self.receipt

    @property
    def _folder(self) -> str:
        return f"{self.split}/{self.index // _SHARDS_PER_FOLDER:03d}"

    @property
    def _stem(self) -> str:
        return f"nsp-{self.index:06d}{_suffix(self.revision)}"

    @staticmethod
    def of(path: str) -> ShardName | None:
        """Return the shard that a file of this name belongs to, or None."""
        found = _SHARD_FILE.fullmatch(path) or _SHARD_PART.fullmatch(path)
        name = ShardName(found["split"], int(found["index"]), int(found["revision"] or 0)) if found else None
        return name if name and path in name.files else None


@dataclass(frozen=True, order=True)
class UnitName:
    """One unit of a split, numbered in the split; `revision` is that of the shard it is made for."""

    split: str
    index: int
    revision: int = 0

    def __str__(self) -> str:
        return f"{self.split}-{self.index:08d}{_suffix(self.revision)}"

    @property
    def part(self) -> str:
        return f"{PARTS}/{self}.part"

    @property
    def ledger(self) -> str:
        return f"{UNIT_LEDGERS}/{self}.parquet"

    @property
    def partial_ledger(self) -> str:
        """Return the path of the rows of a unit whose clips are not all decided. They are not committed, and end with
        the run.
        """
        return f"{PARTS}/{self}.parquet"

    @property
    def crashes(self) -> str:
        return f"{CRASHES}/{self}.json"

    @property
    def files(self) -> tuple[str, ...]:
        """Return all files of the unit, the ledger first."""
        return self.ledger, self.partial_ledger, self.part, self.crashes

    @staticmethod
    def of(path: str) -> UnitName | None:
        """Return the unit that a file of this name belongs to, or None."""
        found = _UNIT_FILE.fullmatch(path)
        name = UnitName(found["split"], int(found["index"]), int(found["revision"] or 0)) if found else None
        return name if name and path in name.files else None


def _suffix(revision: int) -> str:
    return f"-r{revision}" if revision else ""


_FIXED = frozenset(
    [PLAN, CONFIG, MANIFEST, SUMMARY, REPORT, LOCK, RETRY, MARK, CHECKSUMS, CARD, CROISSANT]
    + [f"{ENERGON}/{name}" for name in ("dataset.yaml", "split.yaml", ".info.json", "index.sqlite", "index.uuid")]
    + [name(split) for split in SPLITS for name in (index, wids)]
)
