"""Zips as input: their samples are those of a tar, in the order that a folder with the same files would have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from typing import BinaryIO

from nextscene.common.storage import Storage
from nextscene.curation.sources.archive_samples import MAX_JSON_BYTES, SampleFile, clips_of_samples, is_sidecar
from nextscene.curation.sources.clip import Clip
from nextscene.curation.sources.members import members_of
from nextscene.curation.sources.members.member import LINK, REPEATED, Member, open_archive
from nextscene.curation.sources.members.tar_members import headers_of
from nextscene.curation.sources.members.unpacking import DamagedMember, Packing, read_start
from nextscene.curation.sources.skipped_files import LINKS, SkippedFiles


def clips_of_zip(root: Storage, path: str, skipped: SkippedFiles, scenes: bool = False) -> Iterator[Clip]:
    """Yield a clip for each video or image in the zip, in the order of their paths; all else is counted in `skipped`.

    A member that cannot be used gives a clip that fails. Read the directory, captions and, if they are wanted, `scenes`
    only. The entries of one zip are in memory meanwhile. Raise UsageError if the zip is damaged, or if it has no video
    or image.
    """
    return clips_of_samples(f"{root.display_uri}/{path}", _files(root, path, skipped), skipped, scenes)


def _files(root: Storage, path: str, skipped: SkippedFiles) -> Iterator[SampleFile]:
    usable = [member for member in members_of(root, path) if not _is_skipped(member, skipped)]
    with open_archive(root, path) as archive:
        file = headers_of(archive)
        for member in sorted(usable, key=attrgetter("name")):
            yield _with_text(file, member) if is_sidecar(member.name) and not member.flaw else SampleFile(member)


def _is_skipped(member: Member, skipped: SkippedFiles) -> bool:
    """Return whether a member is skipped, as it is not a file with a usable name and suffix. If so, count it."""
    base = member.name.rpartition("/")[2]
    if base.startswith(".") or "." not in base or member.flaw == REPEATED:
        skipped.add(member.name)
    elif member.flaw == LINK:
        skipped.add_kind(LINKS)
    else:
        return False
    return True


def _with_text(file: BinaryIO, member: Member) -> SampleFile:
    packing = Packing.parse(member.packed)
    try:
        return SampleFile(member, read_start(file, member.offset, member.length, packing, MAX_JSON_BYTES))
    except DamagedMember as damage:
        return SampleFile(replace(member, flaw="damaged_member", flaw_detail=str(damage)))
