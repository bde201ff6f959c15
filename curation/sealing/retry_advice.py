"""Advice on retries: the outcomes that a retry can change, and what to fix before it.

Outcomes decided by a rule, by the plan or by the contents of a file do not change: a retry would repeat them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nextscene.common.text import many
from nextscene.curation.config import CUT_VERSION
from nextscene.curation.outcome import NEEDS_ATTENTION, NO_FILE
from nextscene.curation.sealing.retry import OpenRetry

_ASK_ANEW = "asked about anew"
_REMEDIES = {
    NO_FILE: "put the files there first",
    "source_missing": "put the files back first",
    "source_changed": "put the planned files back first",
    "header_error": "raise `limits.header_seconds` or `limits.header_memory_mb`",
    "cut_timeout": "raise `limits.clip_seconds`",
    "cut_crashed": "raise `limits.clip_memory_mb`",
    "unexpected": "with a version in which that is mended",
    "judge_error": _ASK_ANEW,
    "truncated": _ASK_ANEW,
    "unreadable_answer": _ASK_ANEW,
    "kills_worker": "with more memory for each worker",
}


@dataclass(frozen=True)
class RetryAdvice:
    """A retry that may help: its outcomes, and the reason as text."""

    outcomes: str
    why: str


def advise_retries(ends: Iterable[tuple[str, str, int]]) -> list[RetryAdvice]:
    """Return the retries that can change some of these (outcome, reason, clips)."""
    refused, mended = 0, dict[str, list[str]]()
    for outcome, reason, count in ends:
        if outcome == "refused":
            refused += count
        elif outcome in NEEDS_ATTENTION and reason in _REMEDIES:
            mended.setdefault(outcome, []).append(f"{count:,} {reason}: {_REMEDIES[reason]}")
    found = (
        [RetryAdvice(",".join(mended), "; ".join(line for lines in mended.values() for line in lines))]
        if mended
        else []
    )
    return found + ([RetryAdvice("refused", f"to ask about {many(refused, 'clip')} once more")] if refused else [])


def accepted_retries(
    ends: Iterable[tuple[str, str, int]], cut_version: int, opened: OpenRetry | None
) -> list[RetryAdvice]:
    """Return the retries that may help and that a build accepts.

    A build accepts no retry of a dataset made by another version of the cut, and only the open retry if there is one.
    """
    if cut_version != CUT_VERSION:
        return []
    if opened:
        return [RetryAdvice(opened.words, "which was begun and is not finished")]
    return advise_retries(ends)


def not_retryable(ends: Iterable[tuple[str, str, int]]) -> dict[str, int]:
    """Return reason → number of clips that have failed and that no retry can change."""
    return {
        reason: count for outcome, reason, count in ends if outcome in ("failed", "absent") and reason not in _REMEDIES
    }
