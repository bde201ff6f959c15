"""Screening: cheap rules over headers, before any decode and any money."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nextscene.common.storage import StorageFault
from nextscene.curation.config import BuildConfig, Rules
from nextscene.curation.media.header_reader import HEADER_READER, HeaderError
from nextscene.curation.media.probe import UNKNOWN_DURATION, ImplausibleHeader, Measured, NoVideo, UnreadableFile
from nextscene.curation.outcome import ClipOutcome, Undecided
from nextscene.curation.plan import PlannedClip
from nextscene.curation.sources import MISSING, OPEN_END
from nextscene.curation.sources.reader import SourceChanged, SourceReader
from nextscene.judge.api.request import Frame

_SPAN_SLACK_SECONDS = 0.1


@dataclass(frozen=True)
class Screened:
    """A clip that passed the screen. `frames` are there if the judge must caption it; `sample` as in the ledger.

    A `retimed` one has a file of another time than was planned. `earlier_frames` are those that the first version of
    the cut would have given, in a dataset that it began.
    """

    measured: Measured
    frames: tuple[Frame, ...] = ()
    sample: int = 0
    earlier_frames: tuple[Frame, ...] = ()
    retimed: bool = False


ScreenResult = Screened | ClipOutcome | Undecided | None
"""What is known of a clip before it is asked about; None where its earlier end stands."""

Rule = Callable[[PlannedClip, Measured, Rules], ClipOutcome | None]


def size_rule(clip: PlannedClip, measured: Measured, rules: Rules) -> ClipOutcome | None:
    """The displayed size must be at least the configured one; an image's shorter side likewise."""
    shown = f"shown {measured.width}×{measured.height}"
    if measured.is_image:
        if min(measured.width, measured.height) >= rules.min_image_side:
            return None
        return ClipOutcome("rejected", "too_small", f"{shown}, shorter side below {rules.min_image_side}")
    narrow, low = measured.width < rules.min_width, measured.height < rules.min_height
    if not narrow and not low:
        return None
    reason = "too_small" if narrow and low else "too_narrow" if narrow else "too_low"
    return ClipOutcome("rejected", reason, f"{shown}, below {rules.min_width}×{rules.min_height}")


def span_rule(clip: PlannedClip, measured: Measured, rules: Rules) -> ClipOutcome | None:
    """The span must lie inside the file. An image has no span."""
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


def color_rule(clip: PlannedClip, measured: Measured, rules: Rules) -> ClipOutcome | None:
    """What the headers say of color must have a meaning, and HDR be wanted."""
    if measured.color.unknown:
        return ClipOutcome("rejected", "unknown_color", f"nobody knows how to show {measured.color.unknown}")
    if measured.color.is_hdr and rules.hdr == "reject":
        return ClipOutcome("rejected", "hdr", f"its transfer is {measured.color.transfer}")
    return None


RULES: tuple[Rule, ...] = (size_rule, span_rule, color_rule)


def screen(clip: PlannedClip, reader: SourceReader, config: BuildConfig) -> Measured | ClipOutcome:
    """The clip's measurements, or why it ends here. Raises StorageFault when its storage cannot be read."""
    if clip.size == MISSING and reader.stat(clip) is None:
        return ClipOutcome("failed", "source_missing", f"no file at {clip.name}")
    try:
        with reader.open(clip) as file:
            measured = HEADER_READER.measure(file, config.limits)
    except SourceChanged as change:
        return ClipOutcome("failed", "source_changed", str(change))
    except UnreadableFile as error:
        return ClipOutcome("rejected", "unreadable", str(error))
    except NoVideo as error:
        return ClipOutcome("rejected", "no_video", str(error))
    except ImplausibleHeader as error:
        return ClipOutcome("rejected", "implausible_header", str(error))
    except HeaderError as error:
        return ClipOutcome("failed", "header_error", str(error))
    except OSError as fault:
        raise StorageFault(f"cannot read {clip.name}: {fault}") from fault
    for rule in RULES:
        if outcome := rule(clip, measured, config.rules):
            return replace(outcome, measured=measured)
    return measured
