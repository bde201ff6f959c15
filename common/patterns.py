"""Files below a storage's root, found by patterns such as `Videos/total_part*/*.tar`.

In a name `*` stands for any characters, `?` for one and `[…]` for one of several; a part `**` stands for any folders. A
name that begins with a dot must be matched by a dot. Tested in tests/common/test_patterns.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage

_MAX_DEPTH = 64
_ANY_FOLDERS = "**"
_SPECIAL = re.compile(r"[*?\[]")


def matching_files(root: Storage, pattern: str) -> Iterator[str]:
    """Yield the paths of the files that a pattern matches, in any order. A path that exists matches itself.

    Raise UsageError for folders that nest too deep.
    """
    path = pattern.strip("/")
    if root.stat(path) is not None:
        yield path
    else:
        yield from _matches(root, "", path.split("/"))


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
