"""Where each thing lies below OUT. The only place that knows."""

from __future__ import annotations

import re
from dataclasses import dataclass

PLAN = "plan.parquet"
CONFIG = "config.toml"
MANIFEST = "manifest.json"
SUMMARY = "summary.json"
REPORT = "report.html"
LOCK = "run.lock"
MARK = "nextscene.json"
SUMS = "SHA256SUMS"

SHARDS = "shards"
INDEX = "index"
LEDGER = "ledger"
UNIT_LEDGERS = "ledger/units"
PARTS = "parts"
CRASHES = "parts/crashes"
LATENTS = "latents"

_SHARDS_A_FOLDER = 1000
_SHARD_FILE = re.compile(r"[a-z]+/(?P<split>[a-z]+)/\d{3,}/nsp-(?P<index>\d{6,})(?:-r(?P<revision>\d+))?\..+")
_UNIT_FILE = re.compile(r"(?:.+/)?(?P<split>[a-z]+)-(?P<index>\d{8,})(?:-r(?P<revision>\d+))?\.[a-z]+")


def index(split: str) -> str:
    return f"{INDEX}/{split}.parquet"


@dataclass(frozen=True, order=True)
class ShardName:
    """One shard of a split. A retry seals the shard anew under the next `revision`."""

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
    def ledger(self) -> str:
        return f"{LEDGER}/{self._folder}/{self._stem}.parquet"

    @property
    def _folder(self) -> str:
        return f"{self.split}/{self.index // _SHARDS_A_FOLDER:03d}"

    @property
    def _stem(self) -> str:
        return f"nsp-{self.index:06d}{_suffix(self.revision)}"

    @staticmethod
    def of(path: str) -> ShardName | None:
        """The shard that a file below `shards` or `ledger` belongs to, or None if it is named like none."""
        found = _SHARD_FILE.fullmatch(path)
        return ShardName(found["split"], int(found["index"]), int(found["revision"] or 0)) if found else None


@dataclass(frozen=True, order=True)
class UnitName:
    """One unit of a split, numbered through the split; `revision` is that of the shard it is (re)made for."""

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
    def crashes(self) -> str:
        return f"{CRASHES}/{self}.json"

    @staticmethod
    def of(path: str) -> UnitName | None:
        """The unit that a ledger, a part or a count of crashes belongs to, or None if it is named like none."""
        found = _UNIT_FILE.fullmatch(path)
        return UnitName(found["split"], int(found["index"]), int(found["revision"] or 0)) if found else None


def _suffix(revision: int) -> str:
    return f"-r{revision}" if revision else ""
