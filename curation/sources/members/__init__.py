"""Members of a source: files by themselves, and files inside zips and tars, which are read in place.

    archives     patterns → the archives below a folder, split ones as one location
    members_of   an archive → its members, each with the range of its bytes
    unpack       a member → its own bytes, checked

Tested in tests/curation/sources/members/test_zip_directory.py and its neighbors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nextscene.common.joined_storage import pieces_of
from nextscene.common.storage import Storage
from nextscene.curation.sources.members.archives import archives
from nextscene.curation.sources.members.member import (
    REPEATED,
    ArchiveFile,
    BadArchive,
    Member,
    archive_text,
    open_archive,
)
from nextscene.curation.sources.members.pieces import (
    archive_suffix,
    grouped,
    is_archive,
    missing_piece,
    neighbors,
    piece_of,
)
from nextscene.curation.sources.members.tar_members import members_of_gzipped_tar, members_of_tar
from nextscene.curation.sources.members.unpacking import DamagedMember, Packing, open_gzip, unpack
from nextscene.curation.sources.members.zip_directory import members_of_zip

__all__ = [
    "BadArchive",
    "DamagedMember",
    "Member",
    "Packing",
    "archives",
    "grouped",
    "is_archive",
    "members_of",
    "open_gzip",
    "unpack",
]

_READERS = {
    ".zip": members_of_zip,
    ".tar": members_of_tar,
    ".tar.gz": members_of_gzipped_tar,
    ".tgz": members_of_gzipped_tar,
}
_STARTS = ((0, b"PK\x03\x04", ".zip"), (0, b"\x1f\x8b", ".tar.gz"), (257, b"ustar", ".tar"))


def members_of(root: Storage, location: str) -> Iterator[Member]:
    """Yield the members of an archive in its order: of a zip, a tar, a gzipped tar, or one of these in pieces.

    The suffix says which it is; if the pieces have none, the first bytes do. Of several members with one name the first
    can be used; a hash of each name is kept for that. Raise BadArchive, after what is sound was yielded; StorageFault.
    """
    pieces = pieces_of(location)
    if missing := missing_piece(pieces):
        raise BadArchive(archive_text(root, location), "archive_incomplete", f"its piece {missing} is missing")
    names: set[int] = set()
    with open_archive(root, location) as archive:
        try:
            for member in _READERS[_kind(archive, pieces[0])](archive):
                key = hash(member.name)
                if key in names and not member.flaw:
                    yield replace(member, flaw=REPEATED, flaw_detail="its archive has an earlier member of its name")
                else:
                    yield member
                if not member.flaw:
                    names.add(key)
        except BadArchive as bad:
            if not (others := neighbors(pieces)):
                raise
            what = f"{bad.detail}; is its last piece whole, and is there no {' or '.join(others)}?"
            raise BadArchive(archive.where, bad.reason, what) from bad


def _kind(archive: ArchiveFile, first: str) -> str:
    """Return the suffix that says how to read an archive. Raise BadArchive if none does."""
    piece = piece_of(first)
    if suffix := archive_suffix(first) or (piece.suffix if piece else ""):
        return suffix
    start = archive.file.read(512)
    archive.file.seek(0)
    kind = next((kind for at, mark, kind in _STARTS if start.startswith(mark, at)), "")
    if not kind:
        raise archive.bad("archive_unknown", "its first bytes are neither those of a zip nor of a tar")
    return kind
