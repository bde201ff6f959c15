"""Progress of an evaluation, for whoever shows it.

Tested in tests/evaluation/test_run.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nextscene.judge.call_progress import CallProgress


class VideoProgress(Protocol):
    """Progress of one part of the work, in videos."""

    def begin(self, planned: int, decided: int) -> None:
        """The part begins; `decided` of its `planned` videos are done already."""

    def advance(self, clips: int) -> None:
        """Count so many more videos as done."""

    def tick(self, asking: CallProgress | None = None) -> None:
        """Refresh; called often. `asking` is the state of the calls to the judge, if there are any."""

    def end(self) -> None:
        """The part ends, also with an error."""


NewProgress = Callable[[str], VideoProgress]
"""Returns the progress of a part that is described by a few words, such as `generating sft`."""


class Silent:
    """A progress that shows nothing."""

    def __init__(self, _part: str = "") -> None: ...

    def begin(self, planned: int, decided: int) -> None: ...

    def advance(self, clips: int) -> None: ...

    def tick(self, asking: CallProgress | None = None) -> None: ...

    def end(self) -> None: ...
