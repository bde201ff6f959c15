"""The archives below a folder, found by patterns such as `Videos/total_part*/*.tar.split.*`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from nextscene.common.errors import UsageError
from nextscene.common.joined_storage import SEPARATOR
from nextscene.common.storage import Storage
from nextscene.curation.sources.members.pieces import grouped

_MAX_DEPTH = 64
_ANY_FOLDERS = "**"
_SPECIAL = re.compile(r"[*?\[]")


def archives(root: Storage, patterns: Sequence[str]) -> list[str]:
    """Return the locations of the archives that the patterns match, sorted; pieces of one archive are one location.

    A pattern is a path in which `*`, `?` and `[…]` stand for characters of a name, and a part `**` for any folders.
    Give one that matches all pieces. Names that begin with a dot must be matched by a dot. A file that is not an
    archive by its name is left out.
    """
    found = {path for pattern in patterns for path in _matches(root, "", pattern.strip("/").split("/"))}
    return [SEPARATOR.join(names) for names in grouped(found)]


def _matches(root: Storage, folder: str, parts: Sequence[str]) -> Iterator[str]:
    """Yield the paths of the files below a folder, which ends with "/", that the parts of a pattern match."""
    if folder.count("/") > _MAX_DEPTH:
        raise UsageError(f"{root.display_uri}/{folder[:80]}…: folders nest deeper than {_MAX_DEPTH}")
    part, *rest = parts
    if rest and not _SPECIAL.search(part):
        yield from _matches(root, f"{folder}{part}/", rest)
        return
    if part == _ANY_FOLDERS:
        yield from _matches(root, folder, rest or ["*"])
    for name in root.names(folder) if not folder or root.is_folder(folder.rstrip("/")) else ():
        is_folder, bare = name.endswith("/"), name.rstrip("/")
        if bare.startswith(".") and not part.startswith("."):
            continue
        if part == _ANY_FOLDERS:
            if is_folder:
                yield from _matches(root, f"{folder}{name}", parts)
        elif fnmatchcase(bare, part):
            if is_folder and rest:
                yield from _matches(root, f"{folder}{name}", rest)
            elif not is_folder and not rest:
                yield f"{folder}{name}"
