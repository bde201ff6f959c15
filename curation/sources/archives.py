"""Archives as a source without a table: the samples of each, a video or image with the text beside it.

Tested in tests/curation/sources/presets/test_presets.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nextscene.common.errors import UsageError
from nextscene.common.patterns import matching_files
from nextscene.common.storage import Storage
from nextscene.curation.sources.clip import Clip
from nextscene.curation.sources.skipped_files import SkippedFiles
from nextscene.curation.sources.tar import clips_of_tar

DAMAGED_ARCHIVE = "archive_damaged"


def clips_of_archives(
    root: Storage, patterns: Sequence[str], skipped: SkippedFiles, is_known: Callable[[str], bool], scenes: bool = False
) -> Iterator[Clip]:
    """Yield the clips of the tars that the patterns match, in the order of their paths, without those that are known.

    A tar that cannot be read to its end is a clip that fails, after the clips before the damage. The sample next to it
    is not used: a part of it may be lost.
    """
    for path in sorted({path for pattern in patterns for path in matching_files(root, pattern)}):
        if is_known(path):
            continue
        try:
            yield from clips_of_tar(root, path, skipped, scenes)
        except UsageError as damage:
            yield Clip(path, path, "", flaw=DAMAGED_ARCHIVE, flaw_detail=str(damage))
