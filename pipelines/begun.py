"""What a command need not be told about an OUT that was begun: its source, its settings, the terms of asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from curation.config import Config
from curation.errors import UsageMistake
from curation.kept_terms import KeptTerms
from curation.recorded import DamagedConfig, Recorded, is_record
from curation.terms import Terms
from judge.prices import Prices
from pipelines.settings import SettingsMistake, chosen, from_names
from shards.layout import CONFIG, MANIFEST, PLAN
from shards.storage import Storage


def config_of(recorded: Recorded, out: Storage) -> Config:
    """The configuration that OUT was begun with. Raises UsageMistake for one that this version cannot take."""
    try:
        return from_names(Config, recorded.settings, f"{out.shown}/{CONFIG}")
    except SettingsMistake as mistake:
        raise UsageMistake(
            f"{mistake}; if another version of this program began it, use that version or a newer one"
        ) from mistake


@dataclass(frozen=True)
class Begun:
    """What OUT says of itself; nothing where it is new. What a command is told counts instead."""

    out: Storage
    recorded: Recorded | None
    damage: DamagedConfig | None

    @staticmethod
    def at(out: Storage) -> Begun:
        """Raises UsageMistake for an OUT that is not ours, or of a version that this one does not know."""
        try:
            return Begun(out, Recorded.read(out), None)
        except DamagedConfig as damage:
            return Begun(out, None, damage)

    def source(self, given: str | None) -> str:
        """Raises UsageMistake where neither the command nor OUT names one."""
        if given is not None:
            return given
        if self.damage:
            raise self.damage
        if self.recorded is None:
            lacks = self.out.stat(PLAN) or self.out.stat(MANIFEST)
            why = f"{self.out.shown} has lost its {CONFIG}" if lacks else f"{self.out.shown} holds no plan yet"
            raise UsageMistake(
                f"--source is missing, and {why}, which would name it; name a folder, a manifest, a tar or a video"
            )
        return self.recorded.source

    def config(self, file: Path | None, flags: Mapping[str, Any]) -> Config:
        """Flags count before the file, the file before OUT, OUT before the defaults. Raises SettingsMistake."""
        if file is not None and is_record(file):
            raise SettingsMistake(f"--config {file} is the record of a dataset; leave --config out, --out knows it")
        if self.recorded is None:
            return chosen(Config, file, flags)
        config_of(self.recorded, self.out)
        return chosen(Config, file, flags, self.recorded.settings)

    def terms(
        self,
        config: Config,
        budget: Decimal | None,
        batches: bool | None,
        uncaptioned: Literal["mistake", "caption", "skip"],
        prices: Path | None,
    ) -> Terms | None:
        """How the judge `claude` is paid; None for the others. Budget and batches are those of the last run."""
        if config.judge != "claude":
            return None
        kept = KeptTerms.read(self.out)
        in_batches = kept.in_batches if batches is None else batches
        return Terms(Prices.load(prices).of(config.claude.model), budget or kept.budget, in_batches, uncaptioned)
