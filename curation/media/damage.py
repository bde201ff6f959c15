"""Damage: the decoder errors that affect the frames of a clip. Tested in tests/damage/test_damage.py."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from nextscene.common import child_process
from nextscene.curation.config import BuildConfig
from nextscene.curation.media import damage_child
from nextscene.curation.media.seek import CONTAINERS
from nextscene.curation.outcome import ClipOutcome


@dataclass(frozen=True)
class DecodedSpan:
    """A span as it was decoded, in seconds on the clock of the file.

    `first` is the time of the clip's first frame. `seconds` is the longest duration that the clip may have.
    """

    source: Path
    stream: str
    first: float
    seconds: float


def damage_outcome(part: DecodedSpan, config: BuildConfig, scratch: Path) -> ClipOutcome | None:
    """Decode the span again, packet by packet. Return an outcome if more frames are damaged than allowed, else None.

    Ffmpeg reports what is wrong but not when. Decoders also complain if the clip itself is whole: at a keyframe that is
    preceded by pictures that depend on an earlier one, or at the beginning of a recorded broadcast.
    """
    target = scratch / "faults.jsonl"
    numbers = [part.stream, f"{part.first:.6f}", f"{part.seconds:.6f}"]
    line = [sys.executable, "-P", damage_child.__file__, str(part.source), CONTAINERS, *numbers, str(target)]
    done = child_process.run(line, config.limits)
    if done.code != 0:
        said = done.stderr.splitlines()[-1:]
        return ClipOutcome("failed", "damaged", f"the decoder complained, and the file cannot be examined: {said}")
    faults: dict[float, str] = {}
    for time, said_then in map(json.loads, target.read_text(encoding="utf-8").splitlines()):
        faults.setdefault(time, said_then)
    if len(faults) <= config.rules.max_damaged_frames:
        return None
    when, what = next(iter(faults.items()))
    return ClipOutcome("failed", "damaged", f"{len(faults)} damaged, the first at {when:.3f} s: {what}")
