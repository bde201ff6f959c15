"""The rules that a build may have, in the order in which they are checked.

Add a rule: define its `Rule` in a module of its own, and add it to `RULES` (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from nextscene.common.errors import UsageError
from nextscene.curation.config import Rules
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.rules.base import ClipFacts, Rule
from nextscene.curation.rules.headers import COLOR, SIZE, SPAN

RULES: dict[str, Rule] = {rule.name: rule for rule in (SIZE, SPAN, COLOR)}
"""Name → rule."""


def active_rules(settings: Rules, needs_frames: bool) -> list[Rule]:
    """Return the rules in force that need frames, or those that do not. Raise UsageError for an unknown name."""
    named = [name.strip() for name in settings.further.split(",") if name.strip()]
    if unknown := [name for name in named if name not in RULES or RULES[name].by_default]:
        further = ", ".join(name for name, rule in RULES.items() if not rule.by_default) or "none"
        raise UsageError(f"rules.further = {settings.further!r}: no further rule {unknown[0]!r}; there are {further}")
    active = [rule for rule in RULES.values() if rule.by_default or rule.name in named]
    return [rule for rule in active if rule.needs_frames == needs_frames]


def first_rejection(rules: Sequence[Rule], facts: ClipFacts) -> ClipOutcome | None:
    """Return the outcome from the first rule that a clip does not pass; None if it passes all."""
    return next((outcome for rule in rules if (outcome := rule.check(facts))), None)
