"""Screening: cheap rules on file headers, before anything is decoded or paid for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nextscene.common.storage import StorageFault
from nextscene.curation.config import BuildConfig
from nextscene.curation.media.crop import cropped
from nextscene.curation.media.header_reader import HEADER_READER, HeaderError
from nextscene.curation.media.probe import ImplausibleHeader, Measured, NoVideo, UnreadableFile
from nextscene.curation.outcome import NO_FILE, ClipOutcome, Undecided
from nextscene.curation.plan import PlannedClip
from nextscene.curation.rules.base import ClipFacts
from nextscene.curation.rules.registry import active_rules, first_rejection
from nextscene.curation.sources import MISSING
from nextscene.curation.sources.lfs_pointer import IS_LFS_POINTER, LFS_POINTER, is_lfs_pointer
from nextscene.curation.sources.members import DamagedMember
from nextscene.curation.sources.reader import SourceChanged, SourceReader
from nextscene.judge.api.request import Frame


@dataclass(frozen=True)
class Screened:
    """A clip that passed the screen. It has `frames` if the judge must caption it. `sample` is as in the ledger.

    `retimed` is true if its file has another modification time than planned. In a dataset that the first version of the
    cut began, `earlier_frames` are the frames which that version would have made.
    """

    measured: Measured
    frames: tuple[Frame, ...] = ()
    sample: int = 0
    earlier_frames: tuple[Frame, ...] = ()
    retimed: bool = False


ScreenResult = Screened | ClipOutcome | Undecided | None
"""The result of screening; None if the clip keeps its earlier outcome."""


def screen(clip: PlannedClip, reader: SourceReader, config: BuildConfig) -> Measured | ClipOutcome:
    """Return the clip's measurements, or its outcome if it ends here. Raise StorageFault if storage cannot be read."""
    if clip.size == MISSING and reader.stat(clip) is None:
        return ClipOutcome("absent", NO_FILE, f"no file at {clip.name}")
    try:
        with reader.open(clip) as file:
            found = HEADER_READER.measure(file, config.limits)
    except SourceChanged as change:
        return ClipOutcome("failed", "source_changed", str(change))
    except DamagedMember as damage:
        return ClipOutcome("failed", "damaged_member", str(damage))
    except (UnreadableFile, NoVideo) as error:
        if is_lfs_pointer(reader.start_of(clip)):
            return ClipOutcome("failed", LFS_POINTER, IS_LFS_POINTER)
        reason = "no_video" if isinstance(error, NoVideo) else "unreadable"
        return ClipOutcome("rejected", reason, str(error))
    except ImplausibleHeader as error:
        return ClipOutcome("rejected", "implausible_header", str(error))
    except HeaderError as error:
        return ClipOutcome("failed", "header_error", str(error))
    except OSError as fault:
        raise StorageFault(f"cannot read {clip.name}: {fault}") from fault
    measured = cropped(found, clip.crop)
    if isinstance(measured, ClipOutcome):
        return replace(measured, measured=found)
    rejection = first_rejection(active_rules(config.rules, needs_frames=False), ClipFacts(clip, measured, config))
    return replace(rejection, measured=measured) if rejection else measured
