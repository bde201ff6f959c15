"""The page about a dataset, from counts and cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nextscene.common.page.render import render_page
from nextscene.curation.config import BuildConfig
from nextscene.curation.outcome import OUTCOMES
from nextscene.curation.report.cards import Card
from nextscene.curation.report.counts import Counts
from nextscene.curation.report.plots import plots
from nextscene.curation.summary import BuildSummary

_HERE = Path(__file__).parent
_MAX_REASONS = 100
_MAX_NOT_KEPT = 100
_MEANINGS = {
    "kept": "in the shards",
    "rejected": "rejected by a rule",
    "dropped": "no scene passed the verification",
    "refused": "the judge did not answer",
    "failed": "an error, with the evidence in the ledger",
    "quarantined": "it kills the process that opens it",
    "absent": "the source names it, and has no such file",
}


@dataclass(frozen=True)
class PageFacts:
    """The page's data apart from the clips. `planned` is the number of clips in the plan.

    `passed_over` counts the files of the source that gave no clip, by suffix; None if the plan did not count them.
    """

    config: BuildConfig
    fingerprint: str
    planned: int
    counts: Counts
    last_run: BuildSummary | None
    passed_over: dict[str, int] | None = None


@dataclass(frozen=True)
class Bar:
    """A bar for a part of a whole, in the color of an outcome. `begin` and `share`, its width, are in percent."""

    outcome: str
    name: str
    count: int
    share: float
    begin: float = 0.0


@dataclass(frozen=True)
class OutcomeRow:
    """One row of the table of outcomes."""

    outcome: str
    reason: str
    count: int
    share: float


def render(facts: PageFacts, cards: Sequence[Card]) -> str:
    """Return the page as text. The same facts and cards give the same page."""
    counts = facts.counts
    return render_page(
        _HERE,
        ("page.css", "outcomes.css"),
        ("page.js",),
        facts=facts,
        counts=counts,
        last_run=facts.last_run,
        judge=facts.config.judge_kind,
        meanings=_MEANINGS,
        bars=_outcome_bars(facts),
        outcome_rows=_outcome_rows(counts),
        rounds=_round_bars(counts),
        kept_seconds=counts.kept_frames / facts.config.encode.fps,
        plots=plots(counts, facts.config.encode.fps),
        cards=cards,
        not_kept=[card for card in cards if card.outcome != "kept"][:_MAX_NOT_KEPT],
        choices=_filter_values(cards),
    )


def _outcome_bars(facts: PageFacts) -> list[Bar]:
    """Return bars for all planned clips: one for each outcome, in order, and one for the undecided clips."""
    sizes: dict[str, int] = {outcome: facts.counts.tally.count(outcome) for outcome in OUTCOMES}
    sizes["undecided"] = facts.planned - facts.counts.decided
    bars, begin = [], 0.0
    for name, count in sizes.items():
        if count > 0:
            share = 100 * count / max(facts.planned, facts.counts.decided)
            bars.append(Bar(name, name, count, share, begin))
            begin += share
    return bars


def _outcome_rows(counts: Counts) -> list[OutcomeRow]:
    lines = list(counts.tally.lines())
    rows = [OutcomeRow(*line, 100 * line[2] / counts.decided) for line in lines[:_MAX_REASONS]]
    if rest := lines[_MAX_REASONS:]:
        clips = sum(count for *_, count in rest)
        rows.append(OutcomeRow(rest[0][0], f"{len(rest):,} further reasons", clips, 100 * clips / counts.decided))
    return rows


def _round_bars(counts: Counts) -> list[Bar]:
    """Return bars for the clips that were judged completely: one for each round of a Pass, and one for the dropped."""
    lines = [("kept", f"passed in round {number}", clips) for number, clips in sorted(counts.passed_in.items())]
    if dropped := counts.tally.count("dropped"):
        lines.append(("dropped", "dropped, no scene passed", dropped))
    judged = sum(clips for *_, clips in lines)
    return [Bar(outcome, text, clips, 100 * clips / judged) for outcome, text, clips in lines]


def _filter_values(cards: Sequence[Card]) -> dict[str, list[str]]:
    """Return attribute → values that the cards can be filtered by; only attributes with more than one value."""
    found: dict[str, list[str]] = {
        "outcome": [outcome for outcome in OUTCOMES if any(card.outcome == outcome for card in cards)],
        "reason": sorted({card.reason for card in cards if card.reason}),
        "split": sorted({card.split for card in cards}),
        "source": sorted({card.source.text for card in cards}),
    }
    return {name: values for name, values in found.items() if len(values) > 1}
