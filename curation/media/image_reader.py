"""Images decoded in a child process with limits on CPU time and memory, as an untrusted file may hang or kill it."""

from __future__ import annotations

import atexit
import json
import os
import signal
from dataclasses import astuple
from pathlib import Path
from typing import Any

from nextscene.common.child_server import ChildServer
from nextscene.curation.config import RunLimits
from nextscene.curation.media import child_loop, image_child
from nextscene.curation.media.child_pool import ChildDied, ChildPool, receive, send
from nextscene.curation.media.probe import Crop
from nextscene.curation.outcome import ClipOutcome

IMAGE_CHILDREN = ChildPool(image_child.__file__, "the process that decodes images")
"""The children of this process that decode images."""

_EVIDENCE_CHARACTERS = 2000


def convert_image(
    source: Path, target: Path, side: int | None, limits: RunLimits, crop: Crop | None = None
) -> float | ClipOutcome:
    """Write the image at `source` to `target`, upright, in sRGB and over white, and return the CPU time in seconds.

    It becomes a JPEG of `side`×`side` pixels, scaled to cover them and cropped to its center; without a `side` a PPM of
    its own size. Only its `crop` is used, if given. Return an outcome if the file makes the decoder fail, in whatever
    way; a file that kills its decoder is tried once more in a new one. Raise OSError if `target` cannot be written,
    RunStopped if no child can be started.
    """
    request = {
        "source": str(source),
        "target": str(target),
        "side": side,
        "crop": crop and astuple(crop),
        "seconds": limits.clip_seconds,
        "memory": limits.clip_memory_mb << 20,
    }

    def talk(child: ChildServer) -> dict[str, Any]:
        send(child, json.dumps(request).encode())
        answer: dict[str, Any] = json.loads(receive(child, limits))
        return answer

    try:
        try:
            answer = IMAGE_CHILDREN.ask(talk)
        except ChildDied:
            answer = IMAGE_CHILDREN.ask(talk)
    except ChildDied as death:
        return _outcome_of_death(death, limits)
    if "fault" in answer:
        raise OSError(*answer["fault"], str(target))
    if said := answer.get("not_shown"):
        return ClipOutcome("rejected", "unreadable", said)
    if said := answer.get("damaged"):
        return ClipOutcome("failed", "damaged", said[:_EVIDENCE_CHARACTERS])
    return float(answer["seconds"])


def _outcome_of_death(death: ChildDied, limits: RunLimits) -> ClipOutcome:
    if death.code == -signal.SIGXCPU:
        return ClipOutcome("failed", "cut_timeout", f"the image decoder not done in {limits.clip_seconds:g} s")
    if death.code == child_loop.OUT_OF_MEMORY:
        why = f"the image decoder takes more than {limits.clip_memory_mb:,} MB of memory"
        return ClipOutcome("failed", "cut_error", why)
    return ClipOutcome("failed", "cut_crashed", f"the image decoder ended with {death}"[:_EVIDENCE_CHARACTERS])


atexit.register(IMAGE_CHILDREN.close)
os.register_at_fork(after_in_child=IMAGE_CHILDREN.forget)
