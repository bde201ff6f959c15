"""Checks of a source while it is planned: clips, files, captions and scenes must exist.

Tested in tests/curation/test_plan.py.
"""

from __future__ import annotations

from decimal import Decimal

from nextscene.common.errors import UsageError
from nextscene.common.text import many
from nextscene.curation.captioning_cost import UncaptionedClips
from nextscene.curation.config import BuildConfig
from nextscene.curation.judge_budget import JudgeBudget
from nextscene.curation.sources import MISSING, Clip, SkippedFiles, Source
from nextscene.judge.spending.estimate import CASES

_MAX_SHOWN = 80


class SourceCheck:
    """Counts of a source's clips. `missing` counts those whose file was not found."""

    def __init__(self, config: BuildConfig) -> None:
        self._config = config
        self._captioned = 0
        self._with_scene = 0
        self._first_missing = ""
        self._first_flaw = ""
        self.clips = 0
        self._nowhere = 0
        self.missing = 0
        self.uncaptioned = UncaptionedClips(config)

    def add(self, clip: Clip) -> None:
        self.clips += 1
        if not clip.has_place:
            self._nowhere += 1
            self._first_flaw = self._first_flaw or clip.flaw_detail
        elif clip.size == MISSING:
            self.missing += 1
            self._first_missing = self._first_missing or clip.name
        self._with_scene += bool(clip.scene or clip.flaw)
        # A clip whose caption cannot be used fails; it does not count as one without a caption.
        if clip.caption or clip.flaw:
            self._captioned += 1
        else:
            self.uncaptioned.add(clip.name)

    def check(self, source: Source, skipped: SkippedFiles, judge_budget: JudgeBudget | None) -> None:
        """Raise UsageError if the source is empty or missing, or lacks the captions or scenes that its judge needs."""
        others = f", but {skipped}" if skipped.counts else ""
        if not self.clips:
            raise UsageError(f"`source` {source.display_uri}: no videos or images in it{others}{self._looks(source)}")
        if self._nowhere == self.clips:
            raise UsageError(f"`source` {source.display_uri}: no row of it can be used; {self._first_flaw}")
        if self.missing == self.clips - self._nowhere:
            raise UsageError(f"`source` {source.display_uri}: {self._nothing_there(source)}")
        if not self._captioned and not self._config.judge_kind.can_caption:
            raise UsageError(
                f"`source` {source.display_uri}: no clip has a caption, which `judge` {self._config.judge} needs;"
                f" give a manifest with a `caption` column, or a .txt beside each video, or have claude caption them:"
                f" `judge` claude `caption_missing`{self._instead(skipped)}{self._looks(source)}"
            )
        if not self._with_scene and self._config.judge_kind.reads_scenes:
            raise UsageError(
                f"`source` {source.display_uri}: no clip has a scene, which `judge` {self._config.judge} takes from it;"
                " give a manifest with a column `scene`, or a .json with the key `scene` beside each video in a tar, or"
                f" choose another `judge`{self._instead(skipped)}"
            )
        if self.uncaptioned.count and judge_budget is not None and judge_budget.uncaptioned == "mistake":
            raise UsageError(
                f"`source` {source.display_uri}: {self.uncaptioned.count:,} of {many(self.clips, 'clip')} without a"
                " caption;"
                f" captioning them first would cost {self._captioning(judge_budget)}; give `caption_missing` to have"
                " that done, or `skip_uncaptioned` to leave those clips out"
            )

    @staticmethod
    def _instead(skipped: SkippedFiles) -> str:
        """Return the other files of the source as a phrase: one may be the one meant, such as a manifest."""
        return f" (the source also holds {skipped})" if skipped.counts else ""

    @staticmethod
    def _looks(source: Source) -> str:
        return f"; {source.likely_layout}" if source.likely_layout else ""

    def _nothing_there(self, source: Source) -> str:
        example = self._first_missing[:_MAX_SHOWN]
        said = f"none of the {self.clips:,} files it names is there, such as {example!r}"
        if not source.is_manifest:
            return said
        if "\\" in example:
            return f"{said}; write / for \\ in names, which are relative to {source.root.display_uri}"
        if example.startswith(("~", "$", "%")):
            return f"{said}; write out what ~ and variables stand for, no shell does it in a manifest"
        return f"{said}; names are relative to {source.root.display_uri}"

    def _captioning(self, judge_budget: JudgeBudget) -> str:
        low, high = (self.uncaptioned.bill(judge_budget.price, CASES[case]) for case in ("low", "high"))

        def between(in_batch: bool) -> str:
            return f"{_usd(low.usd(judge_budget.price, in_batch))} to {_usd(high.usd(judge_budget.price, in_batch))}"

        return f"{between(in_batch=False)} (with `batches` {between(in_batch=True)})"


def _usd(amount: Decimal) -> str:
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"
