"""Archives as a source without a table: the samples of each, a video or image with the text beside it.

Tested in tests/curation/sources/presets/test_forms.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any

from nextscene.common.errors import UsageError
from nextscene.common.patterns import matching_files
from nextscene.common.scratch import scratch_folder
from nextscene.common.storage import Storage
from nextscene.curation.sources.archive_index import ArchiveIndex
from nextscene.curation.sources.clip import Clip
from nextscene.curation.sources.mapping.layout import Layout, RowMap
from nextscene.curation.sources.mapping.row_reader import caption_reader
from nextscene.curation.sources.members import BadArchive
from nextscene.curation.sources.skipped_files import SkippedFiles
from nextscene.curation.sources.tar import clips_of_tar

DAMAGED_ARCHIVE = "archive_damaged"


def clips_of_archives(
    root: Storage,
    layout: Layout,
    skipped: SkippedFiles,
    is_known: Callable[[str], bool],
    scenes: bool = False,
    archives: ArchiveIndex | None = None,
) -> Iterator[Clip]:
    """Yield the clips of the layout's tars, in the order of their paths, without those that are known.

    A tar that cannot be read to its end is a clip that fails, after the clips before the damage. The sample next to it
    is not used: a part of it may be lost. Listings of archives are saved in `archives`, if given.
    """
    paths = sorted({path for pattern in layout.members.files for path in matching_files(root, pattern)})

    captions = caption_reader(layout) if layout.map != RowMap() else None

    def listing(path: str) -> Iterator[Any]:
        """Yield the clips of a tar as lists, then the counts of what was passed over."""
        counted = SkippedFiles()
        try:
            yield from map(astuple, clips_of_tar(root, path, counted, scenes, captions))
        except UsageError as damage:
            reason = damage.reason if isinstance(damage, BadArchive) else DAMAGED_ARCHIVE
            yield astuple(Clip(path, path, "", flaw=reason, flaw_detail=str(damage)))
        yield counted.counts

    with scratch_folder() as folder:
        index = archives or ArchiveIndex(Storage.at(folder))
        wanted = [path for path in paths if not is_known(path)]
        for _, values in index.listings(root, wanted, f"clips, scenes: {scenes}, {layout.text}", listing):
            for value in values:
                if isinstance(value, dict):
                    skipped.add_counts(value)
                else:
                    yield Clip(*value)
