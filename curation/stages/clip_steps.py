"""Steps on the file of one clip: screening it, and cutting it. An error of either is the outcome of the clip.

Tested in tests/curation/stages/test_screen.py and tests/curation/stages/test_real_clips.py.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from nextscene.common.errors import RunStopped
from nextscene.common.storage import StorageFault
from nextscene.curation.config import CUT_VERSION, BuildConfig
from nextscene.curation.media.probe import Measured
from nextscene.curation.media.seek import Span
from nextscene.curation.outcome import ClipOutcome
from nextscene.curation.plan import PlannedClip
from nextscene.curation.rules.base import ClipFacts
from nextscene.curation.rules.registry import active_rules, first_rejection
from nextscene.curation.sources.members import DamagedMember
from nextscene.curation.sources.reader import SourceChanged
from nextscene.curation.stages.cut import Cut, cut
from nextscene.curation.stages.keyframes import extract_keyframes, frames_for_rules
from nextscene.curation.stages.keyframes_v1 import extract_keyframes_v1
from nextscene.curation.stages.parallel_clips import ClipWorkspace
from nextscene.curation.stages.screen import Screened, screen
from nextscene.judge.api.request import Frame

T = TypeVar("T")


def screen_clip(
    config: BuildConfig, clip: PlannedClip, workspace: ClipWorkspace, begun_with_cut: int
) -> Screened | ClipOutcome:
    """Return what the screen finds of a clip, with the frames to caption it from if it needs a caption.

    `begun_with_cut` is the version of the cut with which work on the dataset began. Raise StorageFault.
    """
    if outcome := clip.source_outcome:
        return outcome
    found = _screen_and_extract(config, clip, workspace, begun_with_cut)
    return replace(found, retimed=workspace.reader.was_retimed(clip))


def _screen_and_extract(
    config: BuildConfig, clip: PlannedClip, workspace: ClipWorkspace, begun_with_cut: int
) -> Screened | ClipOutcome:
    measured = outcome_of_error(lambda: screen(clip, workspace.reader, config))
    if isinstance(measured, ClipOutcome):
        return measured
    if rejection := _rejected_by_frames(config, clip, measured, workspace):
        return replace(rejection, measured=measured)
    if clip.caption or not config.judge_kind.can_caption:
        return Screened(measured)
    frames = _run_on_file(
        clip, workspace, lambda source: extract_keyframes(source, _span(clip), measured, config, workspace.scratch)
    )
    if isinstance(frames, ClipOutcome):
        return replace(frames, measured=measured)
    earlier: tuple[Frame, ...] | ClipOutcome = ()
    if begun_with_cut < CUT_VERSION:
        earlier = _run_on_file(
            clip,
            workspace,
            lambda source: extract_keyframes_v1(source, _span(clip), measured, config, workspace.scratch),
        )
    return Screened(measured, frames, earlier_frames=() if isinstance(earlier, ClipOutcome) else earlier)


def _rejected_by_frames(
    config: BuildConfig, clip: PlannedClip, measured: Measured, workspace: ClipWorkspace
) -> ClipOutcome | None:
    """Return the outcome from the first rule on frames that a clip does not pass; None if it passes all.

    Nothing is decoded if no such rule is in force.
    """
    rules = active_rules(config.rules, needs_frames=True)
    if not rules:
        return None
    frames = _run_on_file(
        clip, workspace, lambda source: frames_for_rules(source, _span(clip), measured, config, workspace.scratch)
    )
    if isinstance(frames, ClipOutcome):
        return frames
    return outcome_of_error(lambda: first_rejection(rules, ClipFacts(clip, measured, config, frames)))


def cut_clip(
    config: BuildConfig, clip: PlannedClip, measured: Measured, workspace: ClipWorkspace, schema_version: int
) -> Cut | ClipOutcome:
    """Return the cut clip, or the outcome of a clip that cannot be cut. Raise StorageFault."""
    scratch = workspace.scratch
    return _run_on_file(
        clip, workspace, lambda source: cut(source, _span(clip), measured, config, scratch, schema_version)
    )


def _run_on_file(
    clip: PlannedClip, workspace: ClipWorkspace, step: Callable[[Path], T | ClipOutcome]
) -> T | ClipOutcome:
    """Run a step on the clip's file. If it fails, read the whole file, to distinguish a storage fault from a bad clip.

    Raise StorageFault.
    """

    def attempt() -> T | ClipOutcome:
        try:
            made = step(workspace.reader.fetch(clip))
            if isinstance(made, ClipOutcome):
                workspace.reader.read_through(clip)
        except SourceChanged as change:
            return ClipOutcome("failed", "source_changed", str(change))
        except DamagedMember as damage:
            return ClipOutcome("failed", "damaged_member", str(damage))
        return made

    return outcome_of_error(attempt)


def _span(clip: PlannedClip) -> Span:
    return Span.of(clip.start_ms, clip.end_ms)


def outcome_of_error(step: Callable[[], T]) -> T | ClipOutcome:
    """Run a step. An unexpected error fails this clip, with the error's place in the code, and not the whole run.

    Raise StorageFault, also for an OSError or a lack of memory, and RunStopped.
    """
    try:
        return step()
    except (StorageFault, RunStopped):
        raise
    except (OSError, MemoryError) as fault:
        raise StorageFault(f"{socket.gethostname()}: {fault or type(fault).__name__}") from fault
    except Exception as error:  # noqa: BLE001
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return ClipOutcome("failed", "unexpected", f"{type(error).__name__} at {where}: {error}")
