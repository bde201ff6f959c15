"""Headers of a file as the product reads them, by path and through its own reads, each compared with this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nextscene.curation.config import RunLimits
from nextscene.curation.media.header_reader import HEADER_READER
from nextscene.curation.media.probe import ImplausibleHeader, Measured, NoVideo, UnreadableFile, measure

Ended = Measured | UnreadableFile | NoVideo | ImplausibleHeader


def measured_alike(path: Path) -> Measured:
    """Raise what the product raises."""
    found = ended_alike(path)
    if isinstance(found, Exception):
        raise found
    return found


def ended_alike(path: Path) -> Ended:
    with path.open("rb") as file:
        by_path, served = (
            _ended(lambda given=given: HEADER_READER.measure(given, RunLimits())) for given in (path, file)
        )
        for found, here in ((by_path, _ended(lambda: measure(file, path))), (served, _ended(lambda: measure(file)))):
            assert (type(found), str(found)) == (type(here), str(here)), path.name
    return by_path


def _ended(action: Callable[[], Measured]) -> Ended:
    try:
        return action()
    except (UnreadableFile, NoVideo, ImplausibleHeader) as error:
        return error
