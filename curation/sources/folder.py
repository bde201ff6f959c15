"""A folder as a source, searched recursively: videos, images, tars and zips, with caption files beside them.

Tested in tests/curation/sources/test_sources.py.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from operator import methodcaller
from pathlib import Path, PurePosixPath

import pyarrow as pa

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage, StorageFault
from nextscene.common.text import MAX_TEXT_BYTES
from nextscene.curation.sources.archive_samples import NoSample
from nextscene.curation.sources.caption import NO_TEXT, ClipText, bad_text, not_unicode, read_caption, too_long
from nextscene.curation.sources.caption_files import caption_name, is_text
from nextscene.curation.sources.clip import Clip, is_media, location_in
from nextscene.curation.sources.skipped_files import HIDDEN, LINKS, NOT_UTF8, SkippedFiles
from nextscene.curation.sources.tar import clips_of_tar
from nextscene.curation.sources.zipped import clips_of_zip

_MAX_DEPTH = 64
_NAMES_AT_ONCE = 32768


@dataclass(frozen=True)
class FolderFilter:
    """A filter for what is left out of a folder: archives that are known, and without `captions` the caption files."""

    is_known: Callable[[str], bool]
    captions: bool

    def in_source(self, number: int) -> FolderFilter:
        """Return the filter for the source of that number, whose paths it is asked about."""
        return replace(self, is_known=lambda path: self.is_known(location_in(number, path)))


def clips_of_folder(
    root: Storage,
    skipped: SkippedFiles,
    out: Storage | None = None,
    folder_filter: FolderFilter | None = None,
    scenes: bool = False,
) -> Iterator[Clip]:
    """Yield the clips below `root`, in the order of their relative paths as UTF-8; all else is counted in `skipped`.

    `folder_filter` leaves some of them out. With `scenes`, those in archives are read too. Raise UsageError for a link
    that leads to `out` or to a folder above it, and for folders that nest too deep.
    """
    barred = _identity(out, "") if out and out.is_local and out.is_folder() else None
    for folder, name, text in _walk(root, "", (), skipped, barred):
        path = f"{folder}{name}"
        if is_archive(name) and root.stat(path) is None:
            skipped.add_kind(LINKS)  # reading from a pipe would never end
        elif is_archive(name):
            if folder_filter is None or not folder_filter.is_known(path):
                yield from _clips_of_archive(root, path, skipped, scenes)
        else:
            yield _clip(
                root, path, f"{folder}{text}" if text and (folder_filter is None or folder_filter.captions) else ""
            )


def is_archive(name: str) -> bool:
    """Return whether a name is that of an archive whose samples are clips."""
    return name.lower().endswith((".tar", ".zip"))


def _clips_of_archive(root: Storage, path: str, skipped: SkippedFiles, scenes: bool) -> Iterator[Clip]:
    """Yield the clips of an archive. A zip that has none counts as skipped: people keep all kinds of things in zips."""
    if path.lower().endswith(".tar"):
        yield from clips_of_tar(root, path, skipped, scenes)
        return
    try:
        yield from clips_of_zip(root, path, skipped, scenes)
    except NoSample:
        skipped.add(path)


def clip_of_file(root: Storage, name: str) -> Iterator[Clip]:
    """Yield the clip of one file in `root`, with the caption from the file beside it."""
    stem = PurePosixPath(name).stem
    yield _clip(root, name, caption_name(name, [other for other in root.names("") if other.startswith(f"{stem}.")]))


def _clip(root: Storage, path: str, text: str) -> Clip:
    caption = _read_caption(root, text) if text else NO_TEXT
    return Clip(
        name=path,
        identity=path,
        location=path,
        caption=caption.text,
        flaw=caption.flaw,
        flaw_detail=caption.flaw_detail,
    )


def _sorted(names: Iterator[str]) -> Iterator[str]:
    """Return the names in order. They are kept in Arrow as sorted runs, so that a million names fit into memory."""
    runs = []
    while batch := sorted(islice(names, _NAMES_AT_ONCE)):
        runs.append(pa.array(batch, pa.string()))
    return heapq.merge(*(map(methodcaller("as_py"), run) for run in runs))


def _with_texts(names: Iterator[str], skipped: SkippedFiles) -> Iterator[tuple[str, str]]:
    """Yield the folders, archives, videos and images among sorted names, each with its caption file's name or "".

    All names that begin with a stem and a dot are next to each other, so only these are kept in memory.
    """
    ahead: deque[str] = deque()
    behind: list[str] = []
    used: set[str] = set()

    def leave(texts: list[str]) -> None:
        for text in texts:
            behind.remove(text)
            if text not in used:
                skipped.add(text)
            used.discard(text)

    while (name := ahead.popleft() if ahead else next(names, None)) is not None:
        leave([text for text in behind if not name.startswith(f"{PurePosixPath(text).stem}.")])
        if is_text(name):
            behind.append(name)
        elif name.endswith("/") or is_archive(name):
            yield name, ""
        elif not is_media(name):
            skipped.add(name)
        else:
            begin = f"{PurePosixPath(name).stem}."
            while (not ahead or ahead[-1].startswith(begin)) and (following := next(names, None)) is not None:
                ahead.append(following)
            near = takewhile(methodcaller("startswith", begin), ahead)
            text = caption_name(name, [*behind, *filter(is_text, near)])
            if text:
                used.add(text)
            yield name, text
    leave(list(behind))


def _walk(
    root: Storage, folder: str, above: tuple[object, ...], skipped: SkippedFiles, barred: object
) -> Iterator[tuple[str, str, str]]:
    here = _identity(root, folder)
    if here == barred:
        raise UsageError(
            f"{root.display_uri}/{folder} is a link to `out`, whose shards would be taken for videos; remove it"
        )
    if here in above:
        raise UsageError(f"{root.display_uri}/{folder} is a link that leads back to a folder above it; remove it")
    if len(above) > _MAX_DEPTH:
        raise UsageError(f"{root.display_uri}/{folder[:80]}…: folders nest deeper than {_MAX_DEPTH}")
    names = _sorted(_visible(root.names(folder), skipped))
    for name, text in _with_texts(names, skipped):
        if name.endswith("/"):
            yield from _walk(root, f"{folder}{name}", (*above, here), skipped, barred)
        else:
            yield folder, name, text


def _visible(names: Iterator[str], skipped: SkippedFiles) -> Iterator[str]:
    for name in names:
        if name.startswith("."):
            skipped.add_kind(HIDDEN)
        elif not_unicode(name):
            skipped.add_kind(NOT_UTF8)
        else:
            yield name


def _identity(root: Storage, folder: str) -> object:
    """Return a value that identifies a folder, whichever links lead to it."""
    local = root.local_path(folder)
    if local is None:
        return folder
    try:
        stat = local.stat()
    except OSError as fault:
        raise StorageFault(f"cannot list {local}: {fault.strerror}") from fault
    return stat.st_dev, stat.st_ino


def _read_caption(root: Storage, path: str) -> ClipText:
    local = root.local_path(path)
    if local is not None and not local.is_file():
        return bad_text(f"{path} is a link that leads nowhere, or not a file")
    data = _read_start(root, local, path)
    if len(data) > MAX_TEXT_BYTES:
        entry = root.stat(path)
        return too_long(entry.size if entry else len(data))
    return read_caption(data)


def _read_start(root: Storage, local: Path | None, path: str) -> bytes:
    """Return a file's first bytes: one more than a caption may have.

    A local file is opened directly: for a million files this is far faster than through the storage.
    """
    if local is not None:
        try:
            with local.open("rb") as file:
                return file.read(MAX_TEXT_BYTES + 1)
        except OSError:
            pass  # read again through the storage, which reports the error
    return root.read(path, 0, MAX_TEXT_BYTES + 1)
