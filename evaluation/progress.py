"""Interface for the progress of an evaluation.

Tested in tests/evaluation/test_run.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nextscene.judge.call_progress import CallProgress


class VideoProgress(Protocol):
    """Progress of one part of the work, in videos."""

    def begin(self, planned: int, decided: int) -> None:
        """Begin the part. `decided` of its `planned` videos are done already."""

    def advance(self, clips: int) -> None:
        """Count this many more videos as done."""

    def tick(self, asking: CallProgress | None = None) -> None:
        """Refresh the display. Called often. `asking` is the state of the calls to the judge, if there are any."""

    def end(self) -> None:
        """End the part. Also called after an error."""


NewProgress = Callable[[str], VideoProgress]
"""Function from the description of a part, such as `generating sft`, to the object that shows its progress."""


class Silent:
    """A VideoProgress that shows nothing."""

    def __init__(self, _part: str = "") -> None: ...

    def begin(self, planned: int, decided: int) -> None: ...

    def advance(self, clips: int) -> None: ...

    def tick(self, asking: CallProgress | None = None) -> None: ...

    def end(self) -> None: ...
