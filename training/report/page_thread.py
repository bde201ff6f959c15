"""A thread that writes the page of a run while training continues."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from nextscene.common.text import first_line


class PageThread:
    """A writer of the page. A failure never ends the run: `finish` returns it."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write
        self._thread = ThreadPoolExecutor(1, "run-page")
        self._writing: Future[None] | None = None

    def submit(self) -> None:
        """Write the page soon, unless it is being written: then the next one has what it lacks."""
        if self._writing is None or self._writing.done():
            self._writing = self._thread.submit(self._write)

    def finish(self) -> str:
        """Write the page a last time, and end the thread. Return why it could not be written, or ""."""
        error = self._thread.submit(self._write).exception()
        self._thread.shutdown()
        return first_line(error) if error else ""
