"""One root, on disk or in an object store, where each file is published atomically: whole, or not at all.

A path below the root is relative and uses `/`. A failure of the disk, the network, a permission or a credential is
retried a few times and then raised as StorageFault: it stops a run and is never blamed on a clip.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from pyarrow import fs as pafs

from nextscene.common.atomic import (
    UNFINISHED,
    create_file,
    draft_of,
    final_name_of_draft,
    lock_folder,
    rename_synced,
    unlink_if_equal,
)
from nextscene.common.fence import Fence
from nextscene.common.filesystem import BadLocation, StorageFault, split_query, storage_fault
from nextscene.common.location_check import normalize_location
from nextscene.common.scratch import scratch_folder
from nextscene.common.storage_reader import COPY_BYTES, Entry, StorageReader

__all__ = ["BadLocation", "Entry", "Storage", "StorageFault", "split_query"]

T = TypeVar("T")


@dataclass(frozen=True)
class Storage(StorageReader):
    """Files below `uri`: a local folder, or a prefix such as `s3://bucket/prefix` (any scheme of `pyarrow.fs`).

    `anchor` names a file that must exist whenever something is written: it is missing if the disk is not mounted, and
    the write would land on the disk below. `fence` is a lock that must still name its owner then: a writer that was
    suspended for long may have lost it.
    """

    anchor: str = ""
    fence: Fence | None = None

    @staticmethod
    def at(location: str | Path) -> Storage:
        """Return the storage at a URI or a local path, which becomes absolute. Raise BadLocation, StorageFault."""
        storage = Storage(normalize_location(str(location)))
        _ = storage._place  # raises now if the scheme is unknown
        return storage

    def with_anchor(self, path: str) -> Storage:
        """Return the same storage, which is written to only while the file `path` exists in it."""
        return replace(self, anchor=path)

    def with_fence(self, lock: str, owner: str) -> Storage:
        """Return the same storage, which is written to only while the file `lock` names its `owner`."""
        return replace(self, fence=Fence(replace(self, fence=None), lock, owner))

    def subfolder(self, folder: str) -> Storage:
        """Return the storage of a folder below the root, with the same anchor and fence."""
        place, query = split_query(self.uri)
        up = "../" * len(PurePosixPath(folder).parts) if self.anchor else ""
        return Storage(f"{place}/{folder}{query}", up + self.anchor, self.fence)

    # ---- writing -----------------------------------------------------------------------------------------------

    @contextmanager
    def atomic_writer(self, path: str) -> Iterator[BinaryIO]:
        """Yield a local file, open for writing and reading; when the block ends, publish it at `path` atomically.

        On disk: a draft beside it, synced, then renamed. In an object store: one upload of a local temporary file. If
        the block raises, nothing is published, and the temporary file is deleted.
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
            raise  # the block read a missing file
        except OSError as fault:
            raise storage_fault("write", path, self.display_uri, fault) from fault

    def write(self, path: str, data: bytes) -> None:
        """Publish `data` at `path`, atomically."""
        if self.is_local:
            with self.atomic_writer(path) as file:
                file.write(data)
        else:
            self._upload(path, io.BytesIO(data))

    def write_if_changed(self, path: str, data: bytes) -> None:
        """Publish `data` at `path` unless the file has that content."""
        if not self.holds(path, data):
            self.write(path, data)

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file unless it exists; return whether it was written.

        Of concurrent callers exactly one succeeds, on a disk and in S3; in other object stores sometimes several.
        """
        self.check_may_write()
        if (bucket := self._bucket) is not None:
            # `stat` also serves stores without conditional writes.
            return self.stat(path) is None and self._try("create", path, lambda: bucket.create(self._key(path), data))
        with self._exclusive(path):
            return self._create(path, data)

    def compare_and_swap(self, path: str, before: bytes, after: bytes) -> bool:
        """Replace a small file if it contains `before`; return whether it was replaced. Exact on a disk and in S3."""
        self.check_may_write()
        if (bucket := self._bucket) is not None:
            return self._try("write", path, lambda: bucket.compare_and_swap(self._key(path), before, after))
        with self._exclusive(path):
            if not self.holds(path, before):
                return False
            self.write(path, after)
            return True

    @property
    def has_conditional_writes(self) -> bool:
        """Return whether the storage itself compares, so that a writer suspended in the middle replaces nothing."""
        return self._bucket is not None

    def take_over(self, path: str, before: bytes, after: bytes) -> bool:
        """Replace a small file as `compare_and_swap` does, when others may try the same: only one of them succeeds."""
        if self._bucket is not None:
            return self.compare_and_swap(path, before, after)
        with self._exclusive(path):
            return self._delete_if_equal(path, before) and self._create(path, after)

    def delete_if_equal(self, path: str, before: bytes) -> None:
        """Delete a small file if it contains `before`. In S3 it is emptied: few stores delete conditionally."""
        if self._bucket is not None:
            self.compare_and_swap(path, before, b"")
            return
        with self._exclusive(path):
            self._delete_if_equal(path, before)

    def delete(self, path: str) -> None:
        """Delete the file if it exists."""
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
        """Delete the drafts that killed writers left in a folder and below, of files whose paths `owns` accepts.

        On a disk only. Call it only while nobody else writes there.
        """
        root, top = self.local_path(""), self.local_path(folder)
        if root is None or top is None:
            return
        for draft in top.rglob(f".*{UNFINISHED}"):
            final = final_name_of_draft(draft.name)
            if final and owns(draft.with_name(final).relative_to(root).as_posix()):
                self._try("delete", draft.name, partial(draft.unlink, missing_ok=True))

    def abort_uploads(self, owns: Callable[[str], bool], folder: str = "") -> None:
        """Abort the uploads that killed writers left in an object store, of files whose paths `owns` accepts."""
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
        """Raise StorageFault if the anchor is gone. In an object store it is looked up only if `remotely`."""
        if not self.anchor:
            return
        if self.is_local:
            if not self._anchor.exists():
                raise self._gone
        elif remotely and self.stat(self.anchor) is None:
            raise StorageFault(f"cannot write in {self.display_uri}: its {self.anchor} was deleted")

    def check_may_write(self) -> None:
        """Raise StorageFault if the anchor is gone, or the fence names another owner."""
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
        for part in PurePosixPath(self.anchor).parts:  # resolve no other `..`: it may lead out of a link
            place = place.parent if part == ".." else place / part
        return place

    def _delete_if_equal(self, path: str, before: bytes) -> bool:
        """Delete a small file if it contains `before`; return whether it was deleted."""
        self.check_anchor()
        if not self.is_local:
            if not self.holds(path, before):
                return False
            self.delete(path)
            return True
        return self._try_here("delete", path, partial(unlink_if_equal, Path(self.full_path(path)), before))

    def _create(self, path: str, data: bytes) -> bool:
        if not self.is_local:
            if self.stat(path):
                return False
            self.write(path, data)
            return self.read(path) == data

        def once() -> bool:
            with self._draft(path) as draft:
                return create_file(Path(self.full_path(path)), draft, data)

        return self._try_here("create", path, once)

    @contextmanager
    def _exclusive(self, path: str) -> Iterator[None]:
        """Keep other processes from changing the same small file on a disk."""
        folder = Path(self.full_path(path)).parent if self.is_local else None
        if folder is None or not folder.is_dir():
            yield
            return
        with lock_folder(folder):
            yield

    @contextmanager
    def _draft(self, path: str) -> Iterator[Path]:
        """Yield the name of a draft beside `path`, in a folder that exists; delete the draft at the end."""
        final = Path(self.full_path(path))
        try:
            if self.anchor:
                # Never the anchor's own folder or its parents: if they are missing, the disk is not mounted.
                for folder in reversed((final.parent, *final.parent.parents)):
                    if self._anchor.parent in folder.parents:
                        folder.mkdir(exist_ok=True)
            else:
                final.parent.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as gone:
            raise self._gone from gone
        draft = draft_of(final)
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
            rename_synced(draft, final)
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
        """Upload under a draft's name, then move: an interrupted stream publishes an incomplete object."""
        filesystem, final = self._place[0], self.full_path(path)
        draft = str(draft_of(PurePosixPath(final)))
        source.seek(0)
        try:
            # Without this, Arrow compresses by the suffix, which no reader undoes.
            with filesystem.open_output_stream(draft, compression=None) as out:
                shutil.copyfileobj(source, out, COPY_BYTES)
            filesystem.move(draft, final)
        except BaseException:
            with suppress(FileNotFoundError):
                filesystem.delete_file(draft)
            raise

    def _try_here(self, verb: str, path: str, action: Callable[[], T]) -> T:
        """Try on a disk, where the folder of the file may be deleted meanwhile."""
        try:
            return self._try(verb, path, action)
        except FileNotFoundError as gone:
            raise self._gone from gone
