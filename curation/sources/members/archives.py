"""The archives below a folder, found by patterns such as `Videos/total_part*/*.tar.split.*`."""

from __future__ import annotations

from collections.abc import Sequence

from nextscene.common.joined_storage import SEPARATOR
from nextscene.common.patterns import matching_files
from nextscene.common.storage import Storage
from nextscene.curation.sources.members.pieces import grouped


def archives(root: Storage, patterns: Sequence[str]) -> list[str]:
    """Return the locations of the archives that the patterns match, sorted; pieces of one archive are one location.

    Give a pattern that matches all pieces. A file that is not an archive by its name is left out.
    """
    return [
        SEPARATOR.join(names) for names in grouped({path for one in patterns for path in matching_files(root, one)})
    ]
