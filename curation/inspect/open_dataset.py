"""A dataset opened for reading, even while a run works on it, or if only some of its files were copied.

Tested in tests/curation/inspect/test_inspect.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

from nextscene.common.consistent_read import read_consistently
from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.plan import Plan
from nextscene.curation.sealing.committed import CommittedState
from nextscene.judge.spending.answer_segments import CALLS
from nextscene.shards.format.dataset_hints import describe_folder, explain_missing_dataset
from nextscene.shards.format.folder_mark import KIND_NAMES, LATENTS
from nextscene.shards.format.layout import CONFIG, LEDGER, PLAN
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.receipt import sealed_and_partial

T = TypeVar("T")


@dataclass(frozen=True)
class OpenDataset:
    """The dataset in `out`. `config` is None if `config.toml` is missing, `manifest` before the end of the first run.

    Without `config.toml` it is not known which units make a shard, so only sealed shards count.
    """

    out: Storage
    config: BuildConfig | None
    state: CommittedState
    manifest: Manifest | None

    @staticmethod
    def at(out: Storage, config: BuildConfig | None) -> OpenDataset:
        """Return the dataset. Raise UsageError if there is none, DamagedRecord if the manifest cannot be read."""
        try:
            manifest = Manifest.read(out)
        except FileNotFoundError:
            manifest = None
        if config is None and manifest is None:
            raise UsageError(f"{out.display_uri} {explain_missing_dataset(out)}")
        if config is None and (held := describe_folder(out)) == KIND_NAMES[LATENTS]:
            raise UsageError(f"{out.display_uri} holds {held}, not a dataset; name the dataset that they are of")
        state = CommittedState.read(out, config.units_per_shard) if config else _sealed(out)
        return OpenDataset(out, config, state, manifest)

    @cached_property
    def has_plan(self) -> bool:
        return self.out.stat(PLAN) is not None

    @cached_property
    def has_ledger(self) -> bool:
        return self.out.is_folder(LEDGER)

    @cached_property
    def has_calls(self) -> bool:
        return self.out.is_folder(CALLS)

    @cached_property
    def plan(self) -> Plan | None:
        """Return the plan; None if it or the configuration is missing. Raise DamagedRecord."""
        if self.config is None or not self.has_plan:
            return None
        return Plan(self.out, self.config)

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Return the names of files and folders that every OUT has and this one lacks."""
        there = {CONFIG: self.config is not None, PLAN: self.has_plan, LEDGER: self.has_ledger}
        return tuple(name for name, is_there in there.items() if not is_there)

    def ledgers(self) -> Iterator[tuple[str, bool]]:
        """Yield the path of each ledger file that counts, and whether its shard is sealed."""
        if self.has_ledger:
            for shard in self.state.sealed.values():
                yield shard.ledger, True
            for unit in sorted(self.state.committed):
                yield unit.ledger, False


def _sealed(out: Storage) -> CommittedState:
    """Return the state as far as it is known without a plan: sealed shards only."""
    sealed, partial_ones = sealed_and_partial(out)
    return CommittedState(sealed, frozenset(), partial_ones)


def read_dataset(out: Storage, config: BuildConfig | None, read: Callable[[OpenDataset], T]) -> T:
    """Return the result of `read` for a dataset, read again if a run in progress replaced a file meanwhile.

    Raise as `OpenDataset.at` and `read`, and FileNotFoundError for a file that is missing.
    """
    return read_consistently(partial(OpenDataset.at, out, config), read)
