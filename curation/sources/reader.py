"""Reading a clip's bytes: as an open file for its headers, as a local file for the decoder.

Tested in tests/curation/run/test_source_moved.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol, cast

from nextscene.common.sized_file import SizedFile
from nextscene.common.storage import Entry, Storage, StorageFault
from nextscene.curation.sources.clip import MISSING, WHOLE_FILE, locate
from nextscene.curation.sources.digest import Region, digest, region_of

_READ_BYTES = 4 << 20
_MAX_SUFFIX = 16
_ENOUGH = 3
"""So many other files of a folder, none of which is as planned, are no chance."""
_REMEDY = (
    "is the right disk mounted? Mount it, or put back what was planned; if it was changed on purpose, plan it anew into"
    " another --out"
)


class SourceChanged(Exception):
    """The file is not the one that was planned: other size, other contents, or gone."""


@dataclass(frozen=True)
class SentinelFile:
    """A planned file that is checked to tell a missing source from a single changed file."""

    name: str
    location: str
    offset: int
    length: int
    size: int
    mtime_ns: int
    digest: str = ""


@dataclass(frozen=True)
class PlannedFolder:
    """How many clips were planned from the files of a folder and of those below it, and some of these files."""

    clips: int = 0
    files: tuple[SentinelFile, ...] = ()


def _not_known(folder: str) -> PlannedFolder:
    return PlannedFolder()


class LocatedClip(Protocol):
    """What reading needs to know of a clip."""

    @property
    def name(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def mtime_ns(self) -> int: ...
    @property
    def digest(self) -> str: ...


class SourceReader:
    """Reads clips below one root. A remote file, and a member of a tar, is copied to `scratch` for the decoder.

    The last copy is kept until another is asked for: the clips of one film lie side by side. Where a clip's file is not
    what was planned, nor are the others of its folder, which `planned_in` tells, nor any of the `sentinels`, that is
    the source's fault and not the clip's.
    """

    def __init__(
        self,
        root: Storage,
        scratch: Path,
        sentinels: Sequence[SentinelFile] = (),
        planned_in: Callable[[str], PlannedFolder] = _not_known,
    ) -> None:
        self._root = root
        self._scratch = scratch
        self._sentinels = sentinels
        self._planned_in = cache(planned_in)
        self._retimed = ""
        self._digested: tuple[tuple[Region, int, int] | None, str] = None, ""
        self._copied: tuple[str, int, int] | None = None

    def stat(self, clip: LocatedClip) -> Entry | None:
        storage, path = locate(self._root, clip.location)
        return storage.stat(path)

    @contextmanager
    def open(self, clip: LocatedClip) -> Iterator[BinaryIO | Path]:
        """Yield the clip's file for reading its headers: a path where it is a whole local file, else a seekable file.

        The path is a link, alone in a folder: libraries read faster by path, all the more if the suffix is right, but
        look around in the folder for other parts of the file. Raise SourceChanged, StorageFault.
        """
        storage, path = self._unchanged(clip)
        local = storage.local_path(path)
        if local is not None and clip.length == WHOLE_FILE:
            yield self._link(local)
            return
        with storage.open(path) as file:
            yield file if clip.length == WHOLE_FILE else cast(BinaryIO, _Window(file, clip.offset, clip.length))

    def _link(self, file: Path) -> Path:
        suffix = file.suffix if len(file.suffix) <= _MAX_SUFFIX else ""  # "clip" may be longer than the name is
        link = self._scratch / "alias" / f"clip{suffix}"
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        return link

    def fetch(self, clip: LocatedClip) -> Path:
        """Return a local file with the clip's bytes, which may be the source itself. Raise SourceChanged,
        StorageFault.
        """
        storage, path = self._unchanged(clip, contents_too=True)
        local = storage.local_path(path)
        if local is not None and clip.length == WHOLE_FILE:
            return local
        copy = self._scratch / "source"
        wanted = (clip.location, clip.offset, clip.length)
        if self._copied != wanted:
            self._copied = None
            storage.copy_to(copy, path, clip.offset, None if clip.length == WHOLE_FILE else clip.length)
            self._copied = wanted
        return copy

    def read_through(self, clip: LocatedClip) -> None:
        """Read the clip's file to its end: is a failure its contents' or its storage's? Raise StorageFault."""
        storage, path = self._unchanged(clip, contents_too=True)
        with storage.open(path) as file:
            try:
                while file.read(_READ_BYTES):
                    pass
            except OSError as fault:
                raise StorageFault(f"cannot read {clip.name}: {fault}") from fault

    def was_retimed(self, clip: LocatedClip) -> bool:
        """Return whether the file that was read last is this clip's, and has another time than was planned."""
        return self._retimed == clip.location

    def _unchanged(self, clip: LocatedClip, contents_too: bool = False) -> tuple[Storage, str]:
        """Return where the clip's file is. Its contents are compared where it is to be decoded, or has another time."""
        if fault := self._fault(clip, contents_too):
            self._raise(clip, fault)
        return locate(self._root, clip.location)

    def _raise(self, clip: LocatedClip, fault: str) -> NoReturn:
        """Raise StorageFault where more than the clip's file is not as planned, else SourceChanged.

        Its folder is asked first, then the one above, until there are files enough to tell.
        """
        storage, path = locate(self._root, clip.location)
        if not (storage.is_local and self._sentinels) and not storage.has_parent_of(path):
            what = "folder is gone; is its disk mounted?" if storage.is_local else "bucket is gone"
            raise StorageFault(f"cannot read {path} in {storage.display_uri}: its {what}")
        for folder in _folders(clip.location):
            if self._any_is_there(clip, [one for one in self._sentinels if one.location.startswith(f"{folder}/")]):
                raise SourceChanged(f"{clip.name} {fault}")  # without a look at the plan
            planned = self._planned_in(folder)
            if planned.clips > 1 and self._is_lost(folder):
                raise StorageFault(self._lost(clip, folder))
            if self._any_is_there(clip, planned.files):
                raise SourceChanged(f"{clip.name} {fault}")
            if (others := _count_others(clip, planned.files)) >= _ENOUGH:
                raise StorageFault(_not_as_planned(f"the folder {self._shown(folder)}", clip, fault, others))
        if self._sentinels and not self._any_is_there(clip, self._sentinels):
            others = _count_others(clip, self._sentinels)
            raise StorageFault(_not_as_planned(f"the source {self._root.display_uri}", clip, fault, others))
        raise SourceChanged(f"{clip.name} {fault}")

    def _any_is_there(self, clip: LocatedClip, files: Sequence[SentinelFile]) -> bool:
        """Return whether any file but the clip's is as it was planned."""
        return any(file.location != clip.location and not self._fault(file) for file in files)

    def _is_lost(self, folder: str) -> bool:
        """Return whether a folder on a disk is gone or empty."""
        storage, path = locate(self._root, f"{folder}/-")
        return storage.is_local and not storage.has_parent_of(path)

    def _lost(self, clip: LocatedClip, folder: str) -> str:
        """Return why nothing can be read of a folder, by the topmost that is gone or empty: there a disk is missing."""
        for above in _folders(folder):
            if not self._is_lost(above):
                break
            folder = above
        return f"cannot read {clip.name}: the folder {self._shown(folder)} is gone or empty; {_REMEDY}"

    def _shown(self, folder: str) -> str:
        storage, path = locate(self._root, f"{folder}/-")
        return f"{storage.display_uri}/{path}".removesuffix("/-")

    def _fault(self, clip: LocatedClip, contents_too: bool = False) -> str:
        """Return why the file is not the one that was planned; "" if it is, or may be: another time alone says
        nothing.
        """
        storage, path = locate(self._root, clip.location)
        self._retimed = ""
        entry = storage.stat(path)
        if entry is None:
            return "is gone"
        if clip.size == MISSING:
            return ""
        if entry.mtime_ns == clip.mtime_ns and entry.size == clip.size and not contents_too:
            return ""
        if entry.size != clip.size:
            return f"was written anew after the plan was made: {clip.size} bytes, now {entry.size}"
        file = storage.local_path(path)
        if file and clip.digest and self._digest(file, clip, entry) != clip.digest:
            return "was written anew after the plan was made: as many bytes, of other contents"
        self._retimed = clip.location if entry.mtime_ns != clip.mtime_ns else ""
        return ""

    def _digest(self, file: Path, clip: LocatedClip, entry: Entry) -> str:
        """Of the file as it is. The last one is kept: the clips of one film lie side by side."""
        where = region_of(file, clip)
        version = where, entry.size, entry.mtime_ns
        if version != self._digested[0]:
            try:
                self._digested = version, digest(where)
            except OSError as fault:
                raise StorageFault(f"cannot read {clip.name}: {fault}") from fault
        return self._digested[1]


def _folders(location: str) -> Iterator[str]:
    """Yield the folders that a location lies in, the nearest first, but not the root."""
    folder = location.rpartition("/")[0]
    while folder and not folder.endswith("/"):
        yield folder
        folder = folder.rpartition("/")[0]


def _count_others(clip: LocatedClip, files: Sequence[SentinelFile]) -> int:
    return sum(file.location != clip.location for file in files)


def _not_as_planned(what: str, clip: LocatedClip, fault: str, others: int) -> str:
    none = f", and none of {others} others that were looked at is as planned" if others else ""
    return f"{what} is not the one that was planned: {clip.name} {fault}{none}; {_REMEDY}"


class _Window(SizedFile):
    """`length` bytes of a file from `offset` on."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        super().__init__(length)
        self._file = file
        self._offset = offset

    def read_at(self, offset: int, size: int) -> bytes:
        self._file.seek(self._offset + offset)
        return self._file.read(size)
