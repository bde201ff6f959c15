"""One root, on disk or in an object store, where each file is published whole or not at all.

A path below the root is relative and uses `/`. Whatever the disk, the network, a permission or a credential does wrong
comes out as StorageFault, after a few tries: such a fault stops a run and is never the fault of a clip.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import unquote

from pyarrow import fs as pafs

from nextscene.common.fence import Fence
from nextscene.common.filesystem import BadLocation, StorageFault, connect, split_query, storage_fault, with_retries
from nextscene.common.scratch import scratch_folder

if TYPE_CHECKING:
    from nextscene.common.s3 import S3Bucket

__all__ = ["BadLocation", "Entry", "Storage", "StorageFault", "split_query"]

T = TypeVar("T")
P = TypeVar("P", bound=PurePath)
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A file, as its storage lists it. `mtime_ns` is 0 where the storage keeps no time."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Storage:
    """Files below `uri`: a local folder, or a prefix such as `s3://bucket/prefix` (any scheme of `pyarrow.fs`).

    `anchor` names a file that must stand there whenever something is written: where a disk is not mounted any more,
    there is none, and what is written would land on the disk below. `fence` is a lock that must still be its owner's
    then: a writer that was stopped for long may have lost it.
    """

    uri: str
    anchor: str = ""
    fence: Fence | None = None

    @staticmethod
    def at(location: str | Path) -> Storage:
        """The storage at a URI or a local path; a local path becomes absolute. Raises BadLocation, StorageFault."""
        text = str(location)
        if not text.strip():
            raise BadLocation(f"{text!r} is empty; name a place")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise BadLocation(f"{text!a} is not UTF-8; rename what is not, or go there by a link")
        if _ONE_SLASH.match(text):
            raise BadLocation(f"{text} has one slash behind its scheme; write {text.replace(':/', '://', 1)}")
        if "://" not in text:
            try:
                return Storage(str(Path(text).expanduser().absolute()))
            except RuntimeError as error:
                raise BadLocation(f"{text}: {error}") from error
        scheme, _, rest = text.partition("://")
        authority = rest.split("/", 1)[0]
        # A secret may hold a slash, which would end the authority early.
        in_azure = scheme in ("abfs", "abfss") and ":" not in authority  # CONTAINER@ACCOUNT
        if ("@" in authority and not in_azure) or (":" in authority and "@" in rest):
            raise BadLocation(f"{scheme}://… holds a credential; give it through the environment, not in the URI")
        if not rest.strip("/"):
            raise BadLocation(f"{text} names no bucket and no folder")
        place, query = split_query(text)
        if not {".", ".."}.isdisjoint(unquote(place).split("/")):
            raise BadLocation(f"{place} has a part that is `.` or `..`; write the address without it")
        if scheme not in _OF_FOLDERS and "//" in place.partition("://")[2].rstrip("/"):
            raise BadLocation(f"{place} has an empty part (`//`), which cannot be reached; write one slash")
        storage = Storage(f"{place.rstrip('/')}{query.rstrip('/')}")
        _ = storage._place  # fails now if the scheme is unknown
        return storage

    @property
    def _place(self) -> tuple[pafs.FileSystem, str]:
        return connect(self.uri)

    @property
    def is_local(self) -> bool:
        return isinstance(self._place[0], pafs.LocalFileSystem)

    @property
    def display_uri(self) -> str:
        """The URI without its query, for people."""
        return split_query(self.uri)[0]

    def full_path(self, path: str) -> str:
        """The path inside the file system. Raises BadLocation for one that leaves the root."""
        parts = PurePosixPath(path).parts
        if ".." in parts or path.startswith("/"):
            raise BadLocation(f"{path!r} leaves {self.display_uri}")
        base = self._place[1]
        return f"{base}/{path}" if path else base

    def local_path(self, path: str) -> Path | None:
        """The file itself where the storage is a local disk, else None."""
        return Path(self.full_path(path)) if self.is_local else None

    def with_anchor(self, path: str) -> Storage:
        """The same storage, into which is written only while the file `path` stands there."""
        return replace(self, anchor=path)

    def with_fence(self, lock: str, owner: str) -> Storage:
        """The same storage, into which is written only while the file `lock` names its `owner`."""
        return replace(self, fence=Fence(replace(self, fence=None), lock, owner))

    def subfolder(self, folder: str) -> Storage:
        """The storage of a folder below the root, with the same anchor and fence."""
        place, query = split_query(self.uri)
        up = "../" * len(PurePosixPath(folder).parts) if self.anchor else ""
        return Storage(f"{place}/{folder}{query}", up + self.anchor, self.fence)

    # ---- reading -----------------------------------------------------------------------------------------------

    def stat(self, path: str) -> Entry | None:
        """The file at `path`, or None if there is no such file."""
        return self.stats([path])[0]

    def stats(self, paths: list[str]) -> list[Entry | None]:
        """`stat` for many paths at once (in parallel where the storage is remote)."""
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
        """None for a name that no file can have: too long, or a link that leads to itself."""
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
        """Whether the folder of `path` is there and not empty: a disk that is not mounted is an empty folder.

        An object store has no folders: there its bucket must be.
        """
        local = self.local_path(path)
        if local is not None:
            folder = local.parent
            return self._try("look up", path, lambda: folder.is_dir() and any(folder.iterdir()))
        bucket = self.full_path(path).partition("/")[0]
        info = self._try("look up", path, lambda: self._place[0].get_file_info(bucket))
        return bool(info.type == pafs.FileType.Directory)

    def missing_folders(self) -> list[Path]:
        """The folders that a first write would make, the root before its parents; none in an object store."""
        root = self.local_path("")
        if root is None:
            return []
        return self._try("look up", "", lambda: [folder for folder in (root, *root.parents) if not folder.exists()])

    def open(self, path: str) -> BinaryIO:
        """The file, seekable, for reading. Raises FileNotFoundError."""
        file: BinaryIO = self._try("open", path, lambda: self._place[0].open_input_file(self.full_path(path)))
        return file

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """`size` bytes from `offset` (default: to the end). Raises FileNotFoundError."""

        def once() -> bytes:
            with self._place[0].open_input_file(self.full_path(path)) as file:
                return bytes(file.read_at(file.size() - offset if size is None else size, offset))

        return self._try("read", path, once)

    def read_with_age(self, path: str) -> tuple[bytes, float | None]:
        """A small file, and how many seconds ago it was written, both times by the storage's own clock.

        None where that clock is not told: of a disk, whose times may come from the clock of whoever writes.
        Raises FileNotFoundError.
        """
        if (bucket := self._bucket) is not None:
            return self._try("read", path, lambda: bucket.read_with_age(self._key(path)))
        return self.read(path), None

    def copy_to(self, target: Path, path: str, offset: int = 0, size: int | None = None) -> None:
        """Copies `size` bytes from `offset` of a file to a local one, in bounded memory. Raises FileNotFoundError."""

        def once() -> None:
            with self._place[0].open_input_file(self.full_path(path)) as source, target.open("wb") as out:
                source.seek(offset)
                left = source.size() - offset if size is None else size
                while left and (piece := source.read(min(left, _COPY_BYTES))):
                    out.write(piece)
                    left -= len(piece)

        self._try("fetch", path, once)

    def files(self, folder: str = "", recursive: bool = False) -> list[Entry]:
        """The files in a folder, by path; none if there is no such folder. For folders of a bounded size."""

        def once() -> list[pafs.FileInfo]:
            selector = pafs.FileSelector(self.full_path(folder), recursive=recursive, allow_not_found=True)
            found: list[pafs.FileInfo] = self._place[0].get_file_info(selector)
            return found

        base = self._place[1]
        return sorted(
            (
                _entry(info.path.removeprefix(base).lstrip("/"), info)
                for info in self._try("list", folder, once)
                if info.type == pafs.FileType.File and not info.base_name.endswith(_UNFINISHED)
            ),
            key=lambda entry: entry.path,
        )

    def names(self, folder: str) -> Iterator[str]:
        """The names in a folder, in no order, folders with a "/" behind. Meant for folders of any size."""
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

    # ---- writing -----------------------------------------------------------------------------------------------

    @contextmanager
    def atomic_writer(self, path: str) -> Iterator[BinaryIO]:
        """A local file, open for writing and reading. When the block ends well it becomes `path`, at once and whole.

        On disk: a temporary neighbour, synced, then renamed. In an object store: one upload of a local temporary
        file. When the block raises, nothing is published and the temporary file is gone.
        """
        self.check_anchor()
        try:
            if self.is_local:
                with self._draft(path) as draft:
                    with self._opened(draft) as file:
                        yield file
                        file.flush()
                        os.fsync(file.fileno())
                    self.check_may_write()
                    self._rename(path, draft)
            else:
                with scratch_folder() as folder, (folder / "draft").open("w+b") as file:
                    yield file
                    self._upload(path, file)
        except FileNotFoundError:
            raise  # the block read what is not there
        except OSError as fault:
            raise storage_fault("write", path, self.display_uri, fault) from fault

    def write(self, path: str, data: bytes) -> None:
        """Publishes `data` at `path`."""
        if self.is_local:
            with self.atomic_writer(path) as file:
                file.write(data)
        else:
            self._upload(path, io.BytesIO(data))

    def write_if_changed(self, path: str, data: bytes) -> None:
        """Publishes `data` at `path` unless that is what stands there."""
        if not self._holds(path, data):
            self.write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Writes a small file unless it exists; whether it did.

        Of several that try one succeeds, on a disk and in S3; in other object stores not always only one.
        """
        self.check_may_write()
        if (bucket := self._bucket) is not None:
            # Also asked of stores that have no conditional writes.
            return self.stat(path) is None and self._try("create", path, lambda: bucket.create(self._key(path), data))
        with self._alone_at(path):
            return self._create(path, data)

    def compare_and_swap(self, path: str, before: bytes, after: bytes) -> bool:
        """Replaces a small file where it holds `before`; whether it did. Exact on a disk and in S3."""
        self.check_may_write()
        if (bucket := self._bucket) is not None:
            return self._try("write", path, lambda: bucket.compare_and_swap(self._key(path), before, after))
        with self._alone_at(path):
            if not self._holds(path, before):
                return False
            self.write(path, after)
            return True

    @property
    def has_conditional_writes(self) -> bool:
        """Whether it is the storage that compares, so that a writer which is stopped in the middle replaces nothing."""
        return self._bucket is not None

    def take_over(self, path: str, before: bytes, after: bytes) -> bool:
        """As `compare_and_swap`, where others may try the same: only one of them succeeds."""
        if self._bucket is not None:
            return self.compare_and_swap(path, before, after)
        with self._alone_at(path):
            return self._withdraw(path, before) and self._create(path, after)

    def delete_if_equal(self, path: str, before: bytes) -> None:
        """Deletes a small file if it holds `before`. In S3 it is emptied: few stores delete on a condition."""
        if self._bucket is not None:
            self.compare_and_swap(path, before, b"")
            return
        with self._alone_at(path):
            self._withdraw(path, before)

    def delete(self, path: str) -> None:
        """Deletes the file; it need not exist."""
        self.check_may_write()
        bucket = self._bucket

        def once() -> None:
            if bucket is not None:
                bucket.delete(self._key(path))
            else:
                with suppress(FileNotFoundError):
                    self._place[0].delete_file(self.full_path(path))

        self._try("delete", path, once)

    def remove_drafts(self, owns: Callable[[str], bool], folder: str = "") -> None:
        """Deletes what killed writers left unfinished in a folder and below, of files that `owns` knows by their paths.

        Only where nobody else writes may this be called.
        """
        root, top = self.local_path(""), self.local_path(folder)
        if root is None or top is None:
            return
        for draft in top.rglob(f".*{_UNFINISHED}"):
            final = final_name_of_draft(draft.name)
            if final and owns(draft.with_name(final).relative_to(root).as_posix()):
                self._try("delete", draft.name, partial(draft.unlink, missing_ok=True))

    def abort_uploads(self, owns: Callable[[str], bool], folder: str = "") -> None:
        """Ends what killed writers were uploading to an object store; as `remove_drafts`, which is for a disk."""
        if (bucket := self._bucket) is not None:
            root, top = (f"{key}/" if key else "" for key in (self._key(""), self._key(folder)))
            bucket.abort_uploads(top, lambda key: owns(key.removeprefix(root)))
        elif not self.is_local:
            selector = pafs.FileSelector(self.full_path(folder), recursive=True, allow_not_found=True)
            for info in self._try("list", folder, lambda: self._place[0].get_file_info(selector)):
                path = PurePosixPath(info.path.removeprefix(self._place[1]).lstrip("/"))
                if (final := final_name_of_draft(path.name)) and owns(str(path.with_name(final))):
                    self.delete(str(path))

    def check_anchor(self, remotely: bool = False) -> None:
        """Raises StorageFault where the anchor is gone. In an object store it is looked for only on demand."""
        if not self.anchor:
            return
        if self.is_local:
            if not self._anchor.exists():
                raise self._gone
        elif remotely and self.stat(self.anchor) is None:
            raise StorageFault(f"cannot write in {self.display_uri}: its {self.anchor} was deleted")

    def check_may_write(self) -> None:
        """Raises StorageFault where the anchor is gone, or the fence names another owner."""
        self.check_anchor()
        if self.fence is not None:
            self.fence.check()

    @property
    def _gone(self) -> StorageFault:
        what = self._anchor.name if self.anchor else "folder"
        return StorageFault(f"cannot write in {self.display_uri}: its {what} is gone; is the disk mounted?")

    @property
    def _anchor(self) -> Path:
        place = Path(self.full_path(""))
        for part in PurePosixPath(self.anchor).parts:  # no other `..` is resolved: it may lead out of a link
            place = place.parent if part == ".." else place / part
        return place

    def _holds(self, path: str, data: bytes) -> bool:
        try:
            return self.read(path) == data
        except FileNotFoundError:
            return False

    def _withdraw(self, path: str, before: bytes) -> bool:
        """Removes a small file that holds `before`; whether it did."""
        self.check_anchor()
        if not self.is_local:
            if not self._holds(path, before):
                return False
            self.delete(path)
            return True
        return self._try_here("delete", path, partial(_unlink, Path(self.full_path(path)), before))

    def _create(self, path: str, data: bytes) -> bool:
        if not self.is_local:
            if self.stat(path):
                return False
            self.write(path, data)
            return self.read(path) == data

        def once() -> bool:
            with self._draft(path) as draft:
                draft.write_bytes(data)
                try:
                    os.link(draft, self.full_path(path))
                except FileExistsError:
                    return False
            return True

        return self._try_here("create", path, once)

    @contextmanager
    def _alone_at(self, path: str) -> Iterator[None]:
        """Keeps out others that change the same small file on a disk."""
        folder = Path(self.full_path(path)).parent if self.is_local else None
        if folder is None or not folder.is_dir():
            yield
            return
        with _locked(folder):
            yield

    @property
    def _bucket(self) -> S3Bucket | None:
        if not self.uri.startswith("s3://"):
            return None
        from nextscene.common.s3 import open_bucket  # late: it is needed for S3 alone

        return open_bucket(self.uri)

    def _key(self, path: str) -> str:
        """The path inside the bucket."""
        return self.full_path(path).partition("/")[2]

    @contextmanager
    def _draft(self, path: str) -> Iterator[Path]:
        """The name of a temporary neighbour of `path`, in a folder that is there."""
        final = Path(self.full_path(path))
        try:
            if self.anchor:
                # Never the anchor's own folder or what that lies in: where these are missing, the disk is.
                for folder in reversed((final.parent, *final.parent.parents)):
                    if self._anchor.parent in folder.parents:
                        folder.mkdir(exist_ok=True)
            else:
                final.parent.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as gone:
            raise self._gone from gone
        draft = _draft_of(final)
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def _opened(self, draft: Path) -> BinaryIO:
        try:
            return draft.open("w+b")
        except FileNotFoundError as gone:
            raise self._gone from gone

    def _rename(self, path: str, draft: Path) -> None:
        final = Path(self.full_path(path))
        try:
            draft.replace(final)
            _sync_folder(final.parent)
        except FileNotFoundError as gone:
            raise self._gone from gone

    def _upload(self, path: str, source: BinaryIO) -> None:
        self.check_may_write()
        bucket = self._bucket
        if bucket is not None:
            self._try("upload", path, lambda: bucket.upload(self._key(path), source))
        else:
            self._try("upload", path, lambda: self._upload_draft(path, source))

    def _upload_draft(self, path: str, source: BinaryIO) -> None:
        """An interrupted stream makes an object of what it has, so it is given another name first."""
        filesystem, final = self._place[0], self.full_path(path)
        draft = str(_draft_of(PurePosixPath(final)))
        source.seek(0)
        try:
            # No compression by suffix, which would be undone by nobody.
            with filesystem.open_output_stream(draft, compression=None) as out:
                shutil.copyfileobj(source, out, _COPY_BYTES)
            filesystem.move(draft, final)
        except BaseException:
            with suppress(FileNotFoundError):
                filesystem.delete_file(draft)
            raise

    def _try_here(self, verb: str, path: str, action: Callable[[], T]) -> T:
        """On a disk, where a folder that was there before may be gone."""
        try:
            return self._try(verb, path, action)
        except FileNotFoundError as gone:
            raise self._gone from gone

    def _try(self, verb: str, path: str, action: Callable[[], T]) -> T:
        return with_retries(verb, path, self.display_uri, action)


_UNFINISHED = ".unfinished"
_DRAFT = re.compile(rf"\.(?P<final>.+)\.[0-9a-f]{{8}}{re.escape(_UNFINISHED)}", re.DOTALL)
_OF_FOLDERS = ("file", "hdfs", "viewfs")
"""Schemes of file systems, which take two slashes for one; object stores would look for a part without a name."""
_ONE_SLASH = re.compile(r"(?:s3|gs|gcs|abfss?|hdfs|hf|https?):/(?!/)")
_LOCK_TRIES = 100
_LOCK_WAIT_SECONDS = 0.02
_NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ELOOP)


def final_name_of_draft(name: str) -> str | None:
    """The name of the file that a draft of this name was to become, or None for what is not a draft."""
    found = _DRAFT.fullmatch(name)
    return found["final"] if found else None


def _draft_of(final: P) -> P:
    """A name beside the final one, under which nothing counts."""
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}{_UNFINISHED}")


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as fault:
        if fault.errno not in _NO_SUCH_NAME:
            raise
        return False


def _entry(path: str, info: pafs.FileInfo) -> Entry:
    return Entry(path, info.size, info.mtime_ns or 0)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, if its file system has locks. One that was stopped as it held it is waited for briefly:
    what is done inside is wrong only where three meet.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_WAIT_SECONDS)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(handle)


def _unlink(final: Path, before: bytes) -> bool:
    """Removes a small file that holds `before`; whether it did. Of two that try, one does."""
    mine = _draft_of(final)
    try:
        if final.read_bytes() != before:
            return False
        final.rename(mine)
        if mine.read_bytes() == before:
            return True
        with suppress(FileExistsError):
            os.link(mine, final)  # another was first, and has it back
    except FileNotFoundError:
        pass
    finally:
        mine.unlink(missing_ok=True)
    return False
