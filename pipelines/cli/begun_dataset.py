"""Values that a command takes from an OUT that was begun: its source, settings, budget, batches and prices."""

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
from nextscene.pipelines.cli.options import NO_LIMIT, NoLimit, chosen
from nextscene.shards.format.layout import CONFIG, MANIFEST, PLAN, TERMS


def config_of(recorded: RecordedConfig, out: Storage) -> BuildConfig:
    """Return the configuration that OUT was begun with. Raise UsageError if this version cannot read it."""
    try:
        return from_names(BuildConfig, recorded.settings, f"{out.display_uri}/{CONFIG}")
    except SettingsError as mistake:
        raise UsageError(
            f"{mistake}; if another version of this program began it, use that version or a newer one"
        ) from mistake


@dataclass(frozen=True)
class BegunDataset:
    """The record of an OUT. Values given to the command take precedence.

    `recorded` is None if OUT is new, or if its record is damaged; `damage` is the error of a damaged record.
    """

    out: Storage
    recorded: RecordedConfig | None
    damage: DamagedConfig | None

    @staticmethod
    def at(out: Storage) -> BegunDataset:
        """Read the record of `out`. Raise UsageError if OUT is not ours, or of an unknown version."""
        try:
            return BegunDataset(out, RecordedConfig.read(out), None)
        except DamagedConfig as damage:
            return BegunDataset(out, None, damage)

    def source(self, given: str | None) -> str:
        """Return the source that was given, else that of OUT. Raise UsageError if neither is known.

        Raise DamagedConfig if OUT's record of it is damaged.
        """
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
        """Return the configuration. Flags override the file, the file OUT's record, and that the defaults.

        Raise SettingsError for a setting that is not valid, or a file that is the record of a dataset.
        """
        if file is not None and is_record(file):
            raise SettingsError(f"--config {file} is the record of a dataset; leave --config out, --out knows it")
        if self.recorded is None:
            return chosen(BuildConfig, file, flags)
        config_of(self.recorded, self.out)
        return chosen(BuildConfig, file, flags, self.recorded.settings)

    def judge_budget(
        self,
        config: BuildConfig,
        budget: Decimal | NoLimit | None,
        batches: bool | None,
        uncaptioned: Literal["mistake", "caption", "skip"],
        prices: Path | None,
        is_alone: bool = False,
    ) -> JudgeTerms:
        """Return the terms under which the judge `claude` is paid. Values that are not given are those of the last run.

        `is_alone`: OUT is named without its source, so a budget that OUT does not record must be given. Raise
        UsageError or JudgeUsageError.
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
        limit = (kept.budget if kept else None) if budget is None else None if budget == NO_LIMIT else budget
        try:
            price = (table or Prices.load()).for_model(config.claude.model)
        except JudgeUsageError as mistake:
            return JudgeTerms(None, str(mistake))
        judge_budget = JudgeBudget(
            price, limit, in_batches, uncaptioned, table.text if table else "", is_limit_given=not untold
        )
        return JudgeTerms(judge_budget, untold)

    def _untold(self, noted: RecordedBudget | None, kept: RecordedBudget | None, is_alone: bool) -> str:
        """Return why a budget must be given to the command; "" if OUT records it, or is new."""
        if kept:
            return ""
        remedy = "give --budget-usd X, which limits all that is ever spent on it, or --budget-usd none for no limit"
        spent = spent_so_far(self.out)
        so_far = f"; ${spent:,.4f} is spent on it so far" if spent else ""
        if noted and (self.recorded or noted.budget is not None):
            return f"`out` {self.out.display_uri}: its {TERMS} is that of another dataset{so_far}; {remedy}"
        asked = self.recorded and is_paid(self.recorded.identity_settings.get("judge"))
        if is_alone and (asked or (spent is not None and self.out.stat(PLAN))):
            return (
                f"`out` {self.out.display_uri} was begun by a version that kept no budget, so nothing says what may be"
                f" spent{so_far}; {remedy}"
            )
        return ""


@dataclass(frozen=True)
class JudgeTerms:
    """Terms under which the judge is paid.

    `judge_budget` is None if the judge costs nothing, or its price is not known. `judge_unavailable` is why the judge
    may not be asked, "" if it may.
    """

    judge_budget: JudgeBudget | None = None
    judge_unavailable: str = ""
