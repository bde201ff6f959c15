"""What a command need not be told about an OUT that was begun: its source, its settings, the terms of asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from nextscene.common.config_loader import SettingsError, from_names
from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.curation.config import BuildConfig
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.recorded_config import DamagedConfig, RecordedConfig, is_record
from nextscene.curation.run.recorded_budget import RecordedBudget, spent_so_far
from nextscene.judge.errors import JudgeUsageError
from nextscene.judge.registry import is_paid
from nextscene.judge.spending.prices import Prices
from nextscene.pipelines.cli.options import NO_BOUND, NoBound, chosen
from nextscene.shards.format.layout import CONFIG, MANIFEST, PLAN, TERMS


def config_of(recorded: RecordedConfig, out: Storage) -> BuildConfig:
    """The configuration that OUT was begun with. Raises UsageError for one that this version cannot take."""
    try:
        return from_names(BuildConfig, recorded.settings, f"{out.display_uri}/{CONFIG}")
    except SettingsError as mistake:
        raise UsageError(
            f"{mistake}; if another version of this program began it, use that version or a newer one"
        ) from mistake


@dataclass(frozen=True)
class BegunDataset:
    """What OUT says of itself; nothing where it is new. What a command is told counts instead."""

    out: Storage
    recorded: RecordedConfig | None
    damage: DamagedConfig | None

    @staticmethod
    def at(out: Storage) -> BegunDataset:
        """Raises UsageError for an OUT that is not ours, or of a version that this one does not know."""
        try:
            return BegunDataset(out, RecordedConfig.read(out), None)
        except DamagedConfig as damage:
            return BegunDataset(out, None, damage)

    def source(self, given: str | None) -> str:
        """Raises UsageError where neither the command nor OUT names one."""
        if given is not None:
            return given
        if self.damage:
            raise self.damage
        if self.recorded is None:
            lacks = self.out.stat(PLAN) or self.out.stat(MANIFEST)
            why = (
                f"{self.out.display_uri} has lost its {CONFIG}"
                if lacks
                else f"{self.out.display_uri} holds no plan yet"
            )
            raise UsageError(
                f"--source is missing, and {why}, which would name it; name a folder, a manifest, a tar or a video"
            )
        return self.recorded.source

    def config(self, file: Path | None, flags: Mapping[str, Any]) -> BuildConfig:
        """Flags count before the file, the file before OUT, OUT before the defaults. Raises SettingsError."""
        if file is not None and is_record(file):
            raise SettingsError(f"--config {file} is the record of a dataset; leave --config out, --out knows it")
        if self.recorded is None:
            return chosen(BuildConfig, file, flags)
        config_of(self.recorded, self.out)
        return chosen(BuildConfig, file, flags, self.recorded.settings)

    def judge_budget(
        self,
        config: BuildConfig,
        budget: Decimal | NoBound | None,
        batches: bool | None,
        uncaptioned: Literal["mistake", "caption", "skip"],
        prices: Path | None,
        is_alone: bool = False,
    ) -> JudgeTerms:
        """How the judge `claude` is paid. What is not told is as in the last run. Raises UsageError, JudgeUsageError.

        `is_alone` says that OUT is named without its source: what OUT does not know then has to be told.
        """
        if not config.judge_kind.pays:
            return JudgeTerms()
        noted = RecordedBudget.read(self.out)
        kept = noted if noted and noted.belongs_to(self.out) else None
        in_batches = bool(kept and kept.in_batches) if batches is None else batches
        table = Prices.load(prices) if prices else None
        if not table and kept and kept.prices:
            table = Prices.parse(kept.prices.encode(), f"{self.out.display_uri}/{TERMS}")
        untold = self._untold(noted, kept, is_alone) if budget is None else ""
        bound = (kept.budget if kept else None) if budget is None else None if budget == NO_BOUND else budget
        try:
            price = (table or Prices.load()).for_model(config.claude.model, "--model")
        except JudgeUsageError as mistake:
            return JudgeTerms(None, str(mistake))
        judge_budget = JudgeBudget(
            price, bound, in_batches, uncaptioned, table.text if table else "", is_limit_given=not untold
        )
        return JudgeTerms(judge_budget, untold)

    def _untold(self, noted: RecordedBudget | None, kept: RecordedBudget | None, is_alone: bool) -> str:
        """Why the command must say what may be spent; "" where OUT says it, or is new."""
        if kept:
            return ""
        remedy = "give --budget-usd X, which bounds all that is ever spent on it, or --budget-usd none for no bound"
        spent = spent_so_far(self.out)
        so_far = f"; ${spent:,.4f} is spent on it so far" if spent else ""
        if noted and (self.recorded or noted.budget is not None):
            return f"--out {self.out.display_uri}: its {TERMS} is that of another dataset{so_far}; {remedy}"
        asked = self.recorded and is_paid(self.recorded.identity_settings.get("judge"))
        if is_alone and (asked or (spent is not None and self.out.stat(PLAN))):
            return (
                f"--out {self.out.display_uri} was begun by a version that kept no budget, so nothing says what may be"
                f" spent{so_far}; {remedy}"
            )
        return ""


@dataclass(frozen=True)
class JudgeTerms:
    """The terms, None where nobody is asked or no price is known; and why nothing may be asked under them, if so."""

    judge_budget: JudgeBudget | None = None
    judge_unavailable: str = ""
