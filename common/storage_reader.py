"""The reading side of a storage: look up, open, read, fetch and list files below one root."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from pyarrow import fs as pafs

from nextscene.common.atomic import UNFINISHED
from nextscene.common.filesystem import BadLocation, connect, split_query, storage_fault, with_retries

if TYPE_CHECKING:
    from nextscene.common.s3 import S3Bucket

T = TypeVar("T")
COPY_BYTES = 1 << 20
_NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ELOOP)


@dataclass(frozen=True)
class Entry:
    """A file as its storage lists it. `mtime_ns` is 0 if the storage keeps no time."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class StorageReader:
    """Files below `uri`, to be read: a local folder, or a prefix such as `s3://bucket/prefix`."""

    uri: str

    @property
    def _place(self) -> tuple[pafs.FileSystem, str]:
        return connect(self.uri)

    @property
    def is_local(self) -> bool:
        return isinstance(self._place[0], pafs.LocalFileSystem)

    @property
    def display_uri(self) -> str:
        """Return the URI without its query, for messages."""
        return split_query(self.uri)[0]

    def full_path(self, path: str) -> str:
        """Return the path inside the file system. Raise BadLocation for one that leaves the root."""
        parts = PurePosixPath(path).parts
        if ".." in parts or path.startswith("/"):
            raise BadLocation(f"{path!r} leaves {self.display_uri}")
        base = self._place[1]
        return f"{base}/{path}" if path else base

    def local_path(self, path: str) -> Path | None:
        """Return the local path of a file, or None if the storage is not on a local disk."""
        return Path(self.full_path(path)) if self.is_local else None

    def local_files(self, path: str) -> tuple[Path, ...]:
        """Return the local files whose bytes, one after the other, are those of a file; none if it is not local."""
        file = self.local_path(path)
        return () if file is None else (file,)

    def stat(self, path: str) -> Entry | None:
        """Return the file at `path`, or None if there is no such file."""
        return self.stats([path])[0]

    def stats(self, paths: list[str]) -> list[Entry | None]:
        """Return `stat` of many paths at once, in parallel if the storage is remote."""
        full = [self.full_path(path) for path in paths]

        def once() -> list[pafs.FileInfo | None]:
            try:
                found: list[pafs.FileInfo | None] = self._place[0].get_file_info(full)
            except OSError as fault:
                if fault.errno not in _NO_SUCH_NAME:
                    raise
                found = [self._info(path) for path in full]
            return found

        infos = self._try("look up", paths[0] if len(paths) == 1 else f"{len(paths)} files", once)
        return [
            _entry(path, info) if info is not None and info.type == pafs.FileType.File else None
            for path, info in zip(paths, infos, strict=True)
        ]

    def _info(self, full: str) -> pafs.FileInfo | None:
        """Return None for an impossible name: too long, or a link to itself."""
        try:
            return self._place[0].get_file_info(full)
        except OSError as fault:
            if fault.errno not in _NO_SUCH_NAME:
                raise
            return None

    def is_folder(self, path: str = "") -> bool:
        info = self._try("look up", path, lambda: self._place[0].get_file_info(self.full_path(path)))
        return bool(info.type == pafs.FileType.Directory)

    def has_parent_of(self, path: str) -> bool:
        """Return whether the folder of `path` exists and is not empty: an unmounted disk is an empty folder.

        An object store has no folders: there, return whether the bucket exists.
        """
        local = self.local_path(path)
        if local is not None:
            folder = local.parent
            return self._try("look up", path, lambda: folder.is_dir() and any(folder.iterdir()))
        bucket = self.full_path(path).partition("/")[0]
        info = self._try("look up", path, lambda: self._place[0].get_file_info(bucket))
        return bool(info.type == pafs.FileType.Directory)

    def missing_folders(self) -> list[Path]:
        """Return the folders that a first write would create, the root before its parents; none in an object store."""
        root = self.local_path("")
        if root is None:
            return []
        return self._try("look up", "", lambda: [folder for folder in (root, *root.parents) if not folder.exists()])

    def open(self, path: str) -> BinaryIO:
        """Return the file, seekable, open for reading. Raise FileNotFoundError."""
        return self._try("open", path, lambda: self._input(path))

    def _input(self, path: str) -> BinaryIO:
        """Return the open file, after one try."""
        file: BinaryIO = self._place[0].open_input_file(self.full_path(path))
        return file

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return `size` bytes from `offset` (default: to the end). Raise FileNotFoundError."""

        def once() -> bytes:
            with self._input(path) as file:
                wanted = file.seek(0, io.SEEK_END) - offset if size is None else size
                file.seek(offset)
                return file.read(wanted)

        return self._try("read", path, once)

    def holds(self, path: str, data: bytes) -> bool:
        """Return whether the file exists and has exactly this content."""
        try:
            return self.read(path) == data
        except FileNotFoundError:
            return False

    def read_with_age(self, path: str) -> tuple[bytes, float | None]:
        """Return a small file and its age in seconds by the storage's own clock. Raise FileNotFoundError.

        The age is None for a disk, whose times may come from the clock of the writer, and if a store sends no time.
        """
        if (bucket := self._bucket) is not None:
            return self._try("read", path, lambda: bucket.read_with_age(self._key(path)))
        return self.read(path), None

    def copy_to(self, target: Path, path: str, offset: int = 0, size: int | None = None) -> None:
        """Copy `size` bytes from `offset` of a file to a local one, in bounded memory. Raise FileNotFoundError."""

        def once() -> None:
            with self._input(path) as source, target.open("wb") as out:
                left = source.seek(0, io.SEEK_END) - offset if size is None else size
                source.seek(offset)
                while left and (piece := source.read(min(left, COPY_BYTES))):
                    out.write(piece)
                    left -= len(piece)

        self._try("fetch", path, once)

    def files(self, folder: str = "", recursive: bool = False) -> list[Entry]:
        """Return the files in a folder of a bounded size, sorted by path; none if there is no such folder."""

        def once() -> list[pafs.FileInfo]:
            selector = pafs.FileSelector(self.full_path(folder), recursive=recursive, allow_not_found=True)
            found: list[pafs.FileInfo] = self._place[0].get_file_info(selector)
            return found

        base = self._place[1]
        return sorted(
            (
                _entry(info.path.removeprefix(base).lstrip("/"), info)
                for info in self._try("list", folder, once)
                if info.type == pafs.FileType.File and not info.base_name.endswith(UNFINISHED)
            ),
            key=lambda entry: entry.path,
        )

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names in a folder, in any order, folders with a "/" appended. For folders of any size."""
        if self.is_local:
            try:
                with self._try("list", folder, lambda: os.scandir(self.full_path(folder))) as entries:
                    for entry in entries:
                        yield f"{entry.name}/" if _leads_to_folder(entry) else entry.name
            except OSError as fault:
                raise storage_fault("list", folder, self.display_uri, fault) from fault
        else:
            selector = pafs.FileSelector(self.full_path(folder))
            for info in self._try("list", folder, lambda: self._place[0].get_file_info(selector)):
                yield f"{info.base_name}/" if info.type == pafs.FileType.Directory else info.base_name

    @property
    def _bucket(self) -> S3Bucket | None:
        if not self.uri.startswith("s3://"):
            return None
        from nextscene.common.s3 import open_bucket  # late: only S3 needs boto3

        return open_bucket(self.uri)

    def _key(self, path: str) -> str:
        """Return the path inside the bucket."""
        return self.full_path(path).partition("/")[2]

    def _try(self, verb: str, path: str, action: Callable[[], T]) -> T:
        return with_retries(verb, path, self.display_uri, action)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as fault:
        if fault.errno not in _NO_SUCH_NAME:
            raise
        return False


def _entry(path: str, info: pafs.FileInfo) -> Entry:
    return Entry(path, info.size, info.mtime_ns or 0)
