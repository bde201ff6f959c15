"""The reader of a clip's bytes: as an open file for its headers, as a local file for the decoder.

Tested in tests/curation/run/test_source_moved.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol, cast

from nextscene.common.joined_storage import pieces_of
from nextscene.common.sized_file import FileWindow
from nextscene.common.storage import Entry, Storage, StorageFault
from nextscene.curation.sources.clip import MISSING, WHOLE_FILE, Root, first_file, locate
from nextscene.curation.sources.digest import Region, digest, region_of
from nextscene.curation.sources.members.parquet_cells import CellReader, is_in_parquet
from nextscene.curation.sources.members.unpacking import Packing, is_in_gzip, open_gzip, stored_offset, unpack

_READ_BYTES = 4 << 20
_START = 64
_MAX_SUFFIX = 16
_ENOUGH = 3
"""Number of a folder's other files that must all differ from the plan before the folder counts as the wrong one."""
_REMEDY = (
    "is the right disk mounted? Mount it, or put back what was planned; if it was changed on purpose, plan it anew into"
    " another `out`"
)


class SourceChanged(Exception):
    """An error: the file is not the planned one. Its size or contents differ, or it is gone."""


@dataclass(frozen=True)
class SentinelFile:
    """A planned file that is checked to distinguish a missing source from a single changed file."""

    name: str
    location: str
    offset: int
    length: int
    size: int
    mtime_ns: int
    digest: str = ""
    packed: str = ""


@dataclass(frozen=True)
class PlannedFolder:
    """The number of clips planned from the files of a folder and its subfolders, and some of these files."""

    clips: int = 0
    files: tuple[SentinelFile, ...] = ()


def _not_known(folder: str) -> PlannedFolder:
    return PlannedFolder()


class LocatedClip(Protocol):
    """The attributes of a clip that reading needs."""

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
    @property
    def packed(self) -> str: ...


class SourceReader:
    """A reader of clips below one root. Remote files and members of archives are copied to `scratch` for the decoder.

    A copy of a packed member is checked: raise DamagedMember if it is not what its archive promises.

    The last copy is kept until another is needed, since the clips of one film follow each other. If a clip's file is
    not as planned, its folder's other files, which `planned_in` gives, and the `sentinels` are checked. If they are not
    as planned either, the source is at fault and not the clip.
    """

    def __init__(
        self,
        root: Root,
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
        self._tar: tuple[str, BinaryIO] | None = None
        self._table: tuple[tuple[str, str], CellReader] | None = None

    def stat(self, clip: LocatedClip) -> Entry | None:
        storage, path = locate(self._root, clip.location)
        return storage.stat(path)

    @contextmanager
    def open(self, clip: LocatedClip) -> Iterator[BinaryIO | Path]:
        """Yield the clip's file for reading its headers: a path if it is a whole local file, else a seekable file.

        Libraries read faster by path, more so with the right suffix, but search the file's folder for its other parts.
        Therefore the path is a link that is alone in a folder. Raise SourceChanged, DamagedMember, StorageFault.
        """
        if clip.packed and (is_in_parquet(clip.packed) or Packing.parse(clip.packed).method != "stored"):
            with self.fetch(clip).open("rb") as copy:
                yield copy
            return
        storage, path = self._unchanged(clip)
        local = storage.local_path(path)
        if local is not None and clip.length == WHOLE_FILE:
            yield self._link(local)
            return
        with storage.open(path) as file:
            if clip.length == WHOLE_FILE:
                yield file
                return
            offset = stored_offset(file, clip.offset) if clip.packed else clip.offset
            yield cast(BinaryIO, FileWindow(file, offset, clip.length))

    def start_of(self, clip: LocatedClip) -> bytes:
        """Return the first bytes of the clip's file. Raise as `open`."""
        with self.open(clip) as file, file.open("rb") if isinstance(file, Path) else nullcontext(file) as opened:
            opened.seek(0)
            return opened.read(_START)

    def _link(self, file: Path) -> Path:
        suffix = file.suffix if len(file.suffix) <= _MAX_SUFFIX else ""  # with a long suffix, the name may get too long
        link = self._scratch / "alias" / f"clip{suffix}"
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        return link

    def fetch(self, clip: LocatedClip) -> Path:
        """Return a local file with the clip's bytes; it may be the source's own.

        Raise SourceChanged, DamagedMember, StorageFault.
        """
        storage, path = self._unchanged(clip, contents_too=True)
        local = storage.local_path(path)
        if local is not None and clip.length == WHOLE_FILE and not clip.packed:
            return local
        copy = self._scratch / "source"
        wanted = (clip.location, clip.offset, clip.length)
        if self._copied != wanted:
            self._copied = None
            if clip.packed:
                self._unpack(clip, storage, path, copy)
            else:
                storage.copy_to(copy, path, clip.offset, None if clip.length == WHOLE_FILE else clip.length)
            self._copied = wanted
        return copy

    def _unpack(self, clip: LocatedClip, storage: Storage, path: str, copy: Path) -> None:
        """Write a packed member to `copy`.

        A gzipped tar and a table stay open: members further on are reached from there, and others from a beginning.
        """
        if is_in_parquet(clip.packed):
            self._copy_cell(clip, storage, path, copy)
            return
        packing, tar = Packing.parse(clip.packed), self._tar
        self._tar = None
        try:
            if is_in_gzip(clip.packed):
                if tar is None or tar[0] != clip.location:
                    tar = clip.location, cast(BinaryIO, open_gzip(storage.open(path)))
                unpack(tar[1], clip.offset, clip.length, packing, copy)
                self._tar = tar
            else:
                with storage.open(path) as file:
                    unpack(file, clip.offset, clip.length, packing, copy)
        except OSError as fault:
            raise StorageFault(f"cannot read {clip.name}: {fault}") from fault

    def _copy_cell(self, clip: LocatedClip, storage: Storage, path: str, copy: Path) -> None:
        table, self._table = self._table, None
        try:
            if table is None or table[0] != (clip.location, clip.packed):
                table = (clip.location, clip.packed), CellReader(storage.open(path), clip.packed)
            table[1].copy(clip.offset, copy)
        except OSError as fault:
            raise StorageFault(f"cannot read {clip.name}: {fault}") from fault
        self._table = table

    def read_through(self, clip: LocatedClip) -> None:
        """Read the clip's file, or its part of an archive, to the end. Raise StorageFault if that fails: then the
        failure of a clip comes from its storage.

        Raise SourceChanged if the file is not the planned one.
        """
        storage, path = self._unchanged(clip, contents_too=True)
        if is_in_gzip(clip.packed) or is_in_parquet(clip.packed):
            return  # its copy was checked
        with storage.open(path) as file:
            try:
                file.seek(clip.offset)
                left = sys.maxsize if clip.length == WHOLE_FILE else clip.length
                while left and (data := file.read(min(left, _READ_BYTES))):
                    left -= len(data)
            except OSError as fault:
                raise StorageFault(f"cannot read {clip.name}: {fault}") from fault

    def was_retimed(self, clip: LocatedClip) -> bool:
        """Return whether the file checked last is this clip's and has another modification time than planned."""
        return self._retimed == clip.location

    def _unchanged(self, clip: LocatedClip, contents_too: bool = False) -> tuple[Storage, str]:
        """Return the storage and path of the clip's file if it is the planned one. Raise SourceChanged, StorageFault.

        Contents are compared if `contents_too` or if the modification time differs.
        """
        if fault := self._fault(clip, contents_too):
            self._raise(clip, fault)
        return locate(self._root, clip.location)

    def _raise(self, clip: LocatedClip, fault: str) -> NoReturn:
        """Raise StorageFault if more than the clip's file is not as planned, else SourceChanged.

        The files of its folder are checked first, then those of the folder above, until there are enough to decide.
        """
        storage, path = locate(self._root, clip.location)
        if not (storage.is_local and self._sentinels) and not storage.has_parent_of(path):
            what = "folder is gone; is its disk mounted?" if storage.is_local else "bucket is gone"
            raise StorageFault(f"cannot read {pieces_of(path)[0]} in {storage.display_uri}: its {what}")
        for folder in _folders(clip.location):
            if self._any_is_there(clip, [one for one in self._sentinels if one.location.startswith(f"{folder}/")]):
                raise SourceChanged(f"{clip.name} {fault}")  # decided without reading the plan
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
        """Return whether any of the files other than the clip's is as planned."""
        return any(file.location != clip.location and not self._fault(file) for file in files)

    def _is_lost(self, folder: str) -> bool:
        """Return whether a folder on a disk is gone or empty."""
        storage, path = locate(self._root, f"{folder}/-")
        return storage.is_local and not storage.has_parent_of(path)

    def _lost(self, clip: LocatedClip, folder: str) -> str:
        """Return why a folder cannot be read. Name the topmost folder that is gone or empty: its disk is missing."""
        for above in _folders(folder):
            if not self._is_lost(above):
                break
            folder = above
        return f"cannot read {clip.name}: the folder {self._shown(folder)} is gone or empty; {_REMEDY}"

    def _shown(self, folder: str) -> str:
        storage, path = locate(self._root, f"{folder}/-")
        return f"{storage.display_uri}/{path}".removesuffix("/-")

    def _fault(self, clip: LocatedClip, contents_too: bool = False) -> str:
        """Return why the file is not the planned one; "" if it is or may be. Another time alone proves nothing."""
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
        files = storage.local_files(path)
        if files and clip.digest and self._digest(files, clip, entry) != clip.digest:
            return "was written anew after the plan was made: as many bytes, of other contents"
        self._retimed = clip.location if entry.mtime_ns != clip.mtime_ns else ""
        return ""

    def _digest(self, files: tuple[Path, ...], clip: LocatedClip, entry: Entry) -> str:
        """Return the digest of the file as it is now. The last one is cached: clips of one film follow each other."""
        where = region_of(files, clip)
        version = where, entry.size, entry.mtime_ns
        if version != self._digested[0]:
            try:
                self._digested = version, digest(where)
            except OSError as fault:
                raise StorageFault(f"cannot read {clip.name}: {fault}") from fault
        return self._digested[1]


def _folders(location: str) -> Iterator[str]:
    """Yield the folders above a location, the nearest first, without the root."""
    folder = first_file(location).rpartition("/")[0]
    while folder and not folder.endswith("/"):
        yield folder
        folder = folder.rpartition("/")[0]


def _count_others(clip: LocatedClip, files: Sequence[SentinelFile]) -> int:
    return sum(file.location != clip.location for file in files)


def _not_as_planned(what: str, clip: LocatedClip, fault: str, others: int) -> str:
    none = f", and none of {others} others that were looked at is as planned" if others else ""
    return f"{what} is not the one that was planned: {clip.name} {fault}{none}; {_REMEDY}"
