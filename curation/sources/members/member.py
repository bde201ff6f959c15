"""A member of a source: a file by itself or inside an archive.

Tested in tests/curation/sources/members/test_zip_directory.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from nextscene.common.errors import UsageError
from nextscene.common.filesystem import storage_fault
from nextscene.common.joined_storage import pieces_of
from nextscene.common.storage import Entry, Storage
from nextscene.curation.sources.caption import not_unicode
from nextscene.curation.sources.clip import MISSING, WHOLE_FILE, locate
from nextscene.curation.sources.lfs_pointer import IS_LFS_POINTER, LFS_POINTER, LFS_START, is_lfs_pointer

BAD_NAME, LINK, SPARSE = "bad_member_name", "member_is_link", "member_is_sparse"
REPEATED, OVERLAPPING, OUTSIDE = "member_repeated", "member_overlaps", "member_outside_archive"
ENCRYPTED, UNKNOWN_METHOD, IMPLAUSIBLE = "member_encrypted", "member_method_unknown", "member_size_implausible"
"""Flaws: the reasons why a member cannot be used."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a source: by itself, or inside an archive.

    `name` is the path inside the archive, or below the source's folder. `location` is the file that has its bytes; of
    a split archive, its pieces (`common.joined_storage`). The member is the `length` stored bytes at `offset`; `packed`
    says how they are stored, as in `Clip`. `size` and `mtime_ns` are those of the file at `location`. A member with a
    `flaw` cannot be used; it is the reason, in a word, and `flaw_detail` is a sentence.
    """

    name: str
    location: str
    offset: int = 0
    length: int = WHOLE_FILE
    packed: str = ""
    size: int = MISSING
    mtime_ns: int = 0
    flaw: str = ""
    flaw_detail: str = ""


class BadArchive(UsageError):
    """An archive that cannot be listed, or not to its end. The members that were listed before are sound.

    `reason` is a word to count by: `archive_missing`, `archive_incomplete`, `archive_damaged`, `archive_unknown` or
    `lfs_pointer`.
    """

    def __init__(self, where: str, reason: str, detail: str) -> None:
        super().__init__(where, reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.detail}"


@dataclass(frozen=True)
class ArchiveFile:
    """An archive that is open for reading."""

    where: str
    location: str
    file: BinaryIO
    entry: Entry
    is_local: bool

    def bad(self, reason: str, detail: str) -> BadArchive:
        """Return the error for this archive, which says so if it is a pointer of git-lfs instead."""
        self.file.seek(0)
        if is_lfs_pointer(self.file.read(len(LFS_START))):
            return BadArchive(self.where, LFS_POINTER, IS_LFS_POINTER)
        return BadArchive(self.where, reason, detail)


def archive_text(root: Storage, location: str) -> str:
    """Return where an archive is, for messages: of one in pieces, the first and how many follow."""
    first, *more = pieces_of(location)
    return f"{root.display_uri}/{first}" + (f" and {len(more)} more" if more else "")


@contextmanager
def open_archive(root: Storage, location: str) -> Iterator[ArchiveFile]:
    """Yield an archive. Raise BadArchive if it does not exist, StorageFault if it cannot be read."""
    storage, path = locate(root, location)
    where = archive_text(root, location)
    if (entry := storage.stat(path)) is None:
        raise BadArchive(where, "archive_missing", "no such file")
    try:
        with storage.open(path) as file:
            yield ArchiveFile(where, location, file, entry, storage.is_local)
    except OSError as fault:
        raise storage_fault("read", pieces_of(path)[0], storage.display_uri, fault) from fault


def usable_name(name: str) -> tuple[str, str]:
    """Return a member's name as unpacking would write it, and why it cannot be used; "" if it can.

    A leading `/` is left out, as programs that unpack do. A name with `..` leads out of where it is unpacked.
    """
    usable = str(PurePosixPath(name.lstrip("/")))
    if wrong := not_unicode(usable):
        return usable.encode("utf-8", "backslashreplace").decode(), wrong
    if "\0" in usable:
        return usable.replace("\0", "\\x00"), "it holds a zero byte"
    if usable == "." or ".." in PurePosixPath(usable).parts:
        return usable, "it names no file, or leads out of its folder"
    return usable, ""
