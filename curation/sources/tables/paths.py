"""Tables named by patterns."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from nextscene.common.atomic import UNFINISHED
from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage

_WILDCARD = re.compile(r"[*?[]")
_SHOWN = 8


def table_paths(root: Storage, patterns: Sequence[str]) -> list[str]:
    """Return the paths of the files that fit a pattern such as `data/train/*.csv`, sorted, each once.

    In the name of a folder or a file `*` stands for any letters, `?` for one, `[ab]` for one of these; a name that
    begins with a dot fits only what does so too. A path that exists is itself. Raise UsageError for a pattern that no
    file fits.
    """
    return sorted({path for pattern in patterns for path in _matches(root, pattern)})


def _matches(root: Storage, pattern: str) -> list[str]:
    path = PurePosixPath(pattern)
    if "**" in path.parts:
        raise UsageError(f"the pattern {pattern!r} has **, which is not supported; write one * for each folder")
    if root.stat(str(path)) is not None:
        return [str(path)]
    entries = root.stats(list(_candidates(root, "", path.parts or ("",))))
    found = [entry.path for entry in entries if entry is not None]
    if not found:
        raise UsageError(f"no file in {root.display_uri} fits the pattern {pattern!r}; {_nearest(root, path)}")
    return found


def _candidates(root: Storage, folder: str, parts: Sequence[str]) -> Iterator[str]:
    """Yield the paths that fit the parts of a pattern; what has no wildcard at its end may not exist."""
    part, *others = parts
    names = [name for name in _names(root, folder) if _fits(name, part)] if _WILDCARD.search(part) else [f"{part}/"]
    for name in names:
        path = f"{folder}{name}"
        if not others:
            yield path.rstrip("/")
        elif name.endswith("/"):
            yield from _candidates(root, path, others)


def _fits(name: str, part: str) -> bool:
    return fnmatchcase(name.rstrip("/"), part) and (part.startswith(".") or not name.startswith("."))


def _names(root: Storage, folder: str) -> Iterator[str]:
    """Yield the names in a folder, those of folders with a "/" at the end; none if there is no such folder."""
    if root.is_folder(folder.rstrip("/")):
        yield from (name for name in root.names(folder.rstrip("/")) if not name.endswith(UNFINISHED))


def _nearest(root: Storage, path: PurePosixPath) -> str:
    """Return what there is in the last folder of a pattern that exists, in words."""
    folders = [str(parent) for parent in path.parents if not _WILDCARD.search(str(parent))]
    folder = next((one for one in folders if one != "." and root.is_folder(one)), "")
    *first, beyond = [*heapq.nsmallest(_SHOWN + 1, _names(root, folder)), ""][: _SHOWN + 1]
    names = ", ".join(first) or "nothing"
    return f"{folder or 'there'} has {names}{', …' if beyond else ''}"
