"""Helpers of the tests of members: listing an archive, and reading its members as a build does."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nextscene.common.storage import Storage
from nextscene.curation.sources import Clip
from nextscene.curation.sources.members import BadArchive, Member, members_of
from nextscene.curation.sources.reader import SourceReader


def listed(archive: Path) -> list[Member]:
    return list(members_of(Storage.at(archive.parent), archive.name))


def listed_until_damage(root: Storage | Path, location: str) -> tuple[list[Member], BadArchive | None]:
    """Return the members that are listed, and the error that ends the list."""
    found: list[Member] = []
    try:
        for member in members_of(Storage.at(root) if isinstance(root, Path) else root, location):
            found.append(member)
    except BadArchive as bad:
        return found, bad
    return found, None


def clip_of(member: Member) -> Clip:
    return Clip(
        name=member.name,
        identity=member.name,
        location=member.location,
        offset=member.offset,
        length=member.length,
        packed=member.packed,
        size=member.size,
        mtime_ns=member.mtime_ns,
    )


def contents(root: Storage | Path, member: Member) -> bytes:
    """Return a member's bytes, as the decoder and the reader of headers get them; they must be the same."""
    with tempfile.TemporaryDirectory() as scratch:
        reader = SourceReader(Storage.at(root) if isinstance(root, Path) else root, Path(scratch))
        clip = clip_of(member)
        with reader.open(clip) as file:
            assert not isinstance(file, Path)
            headers = file.read()
        copy = reader.fetch(clip).read_bytes()
    assert copy == headers
    return copy


def usable(members: list[Member]) -> dict[str, Member]:
    return {member.name: member for member in members if not member.flaw}
