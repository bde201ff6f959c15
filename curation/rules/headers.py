"""The rules on headers that every build has. Tested in tests/curation/stages/test_screen.py."""

from __future__ import annotations

from nextscene.curation.media.probe import UNKNOWN_DURATION
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.rules.base import ClipFacts, Rule
from nextscene.curation.sources import OPEN_END

_SPAN_SLACK_SECONDS = 0.1


def size_rule(facts: ClipFacts) -> ClipOutcome | None:
    """Require a video's displayed size, or an image's shorter side, to be at least the configured minimum."""
    measured, rules = facts.measured, facts.config.rules
    width, height = measured.kept_size
    shown = f"{'cropped to' if measured.crop else 'shown'} {width}×{height}"
    if measured.is_image:
        if min(width, height) >= rules.min_image_side:
            return None
        return ClipOutcome("rejected", "too_small", f"{shown}, shorter side below {rules.min_image_side}")
    narrow, low = width < rules.min_width, height < rules.min_height
    if not narrow and not low:
        return None
    reason = "too_small" if narrow and low else "too_narrow" if narrow else "too_low"
    return ClipOutcome("rejected", reason, f"{shown}, below {rules.min_width}×{rules.min_height}")


def span_rule(facts: ClipFacts) -> ClipOutcome | None:
    """Require the span to be inside the file. Reject a span of an image."""
    clip, measured = facts.clip, facts.measured
    if clip.start_ms == 0 and clip.end_ms == OPEN_END:
        return None
    if measured.is_image:
        return ClipOutcome("rejected", "span_outside", "a span of an image")
    if measured.end == UNKNOWN_DURATION:
        return None
    end = clip.start_ms / 1000 if clip.end_ms == OPEN_END else clip.end_ms / 1000
    if clip.start_ms / 1000 < measured.end and end <= measured.end + _SPAN_SLACK_SECONDS:
        return None
    span = f"{clip.start_ms / 1000:.3f}–{'' if clip.end_ms == OPEN_END else f'{end:.3f}'} s"
    return ClipOutcome("rejected", "span_outside", f"span {span} of a video of {measured.end:.3f} s")


def color_rule(facts: ClipFacts) -> ClipOutcome | None:
    """Require color headers that can be converted. Reject HDR if the settings say so."""
    measured = facts.measured
    if measured.color.unknown:
        return ClipOutcome("rejected", "unknown_color", f"nobody knows how to show {measured.color.unknown}")
    if measured.color.is_hdr and facts.config.rules.hdr == "reject":
        return ClipOutcome("rejected", "hdr", f"its transfer is {measured.color.transfer}")
    return None


SIZE = Rule("size", size_rule, by_default=True)
SPAN = Rule("span", span_rule, by_default=True)
COLOR = Rule("color", color_rule, by_default=True)
