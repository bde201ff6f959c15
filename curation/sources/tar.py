"""WebDataset tars as input. Tested in tests/curation/sources/test_sources.py."""

from __future__ import annotations

from collections.abc import Iterator

from nextscene.common.storage import Storage
from nextscene.curation.sources.archive_samples import (
    MAX_JSON_BYTES,
    Captions,
    SampleFile,
    clips_of_samples,
    is_sidecar,
)
from nextscene.curation.sources.caption import not_unicode
from nextscene.curation.sources.clip import Clip
from nextscene.curation.sources.members.member import SPARSE as IS_SPARSE
from nextscene.curation.sources.members.member import Member, open_archive
from nextscene.curation.sources.members.tar_members import TarMember, headers_of, walk_tar
from nextscene.curation.sources.skipped_files import LINKS, NOT_UTF8, SPARSE, SkippedFiles


def clips_of_tar(
    root: Storage, path: str, skipped: SkippedFiles, scenes: bool = False, captions: Captions | None = None
) -> Iterator[Clip]:
    """Yield a clip for each video or image in the tar, in the tar's order; all else is counted in `skipped`.

    Read headers, captions and, if they are wanted, `scenes` only; `captions` is as for `clips_of_samples`. Raise
    UsageError if the tar is compressed or damaged, if it has no video or image, or if the members of a sample are not
    together.
    """
    return clips_of_samples(f"{root.display_uri}/{path}", _files(root, path, skipped), skipped, scenes, captions)


def _files(root: Storage, path: str, skipped: SkippedFiles) -> Iterator[SampleFile]:
    with open_archive(root, path) as archive:
        file = headers_of(archive)
        for found in walk_tar(archive, file, archive.entry.size):
            if _is_skipped(found, skipped):
                continue
            text = b""
            if is_sidecar(found.name):
                file.seek(found.offset)
                text = file.read(min(found.size, MAX_JSON_BYTES))
            yield SampleFile(Member(found.name, path, found.offset, found.size), text)


def _is_skipped(found: TarMember, skipped: SkippedFiles) -> bool:
    """Return whether a member is skipped, as it is not a plain file with a usable name and suffix. If so, count it."""
    base = found.name.rpartition("/")[2]
    if not_unicode(found.name) or "\0" in found.name:
        skipped.add_kind(NOT_UTF8)
    elif base.startswith(".") or "." not in base:
        skipped.add(found.name)
    elif found.flaw:
        skipped.add_kind(SPARSE if found.flaw == IS_SPARSE else LINKS)
    else:
        return False
    return True
