"""Files below a storage's root, named by patterns such as `Videos/total_part*/*.tar`.

In a name `*` stands for any characters, `?` for one and `[ab]` for one of these; a part `**` stands for any number of
folders. A name that begins with a dot fits only what does so too.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from nextscene.common.atomic import UNFINISHED
from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage

_MAX_DEPTH = 64
_ANY_FOLDERS = "**"
_WILDCARD = re.compile(r"[*?[]")
_SHOWN = 8


def matching_files(root: Storage, pattern: str) -> Iterator[str]:
    """Yield the paths of the files that fit a pattern, in any order. A path that exists fits itself.

    Of a pattern with `**` a file may come twice. Raise UsageError for folders that nest too deep.
    """
    path = PurePosixPath(pattern)
    if root.stat(str(path)) is not None:
        yield str(path)
        return
    for name in _candidates(root, "", path.parts):
        if _WILDCARD.search(path.name) or root.stat(name) is not None:
            yield name


def nearest_files(root: Storage, pattern: str) -> str:
    """Return what there is in the last folder of a pattern that exists, in words, for the message that no file fits."""
    folders = [str(parent) for parent in PurePosixPath(pattern).parents if not _WILDCARD.search(str(parent))]
    folder = next((one for one in folders if one != "." and root.is_folder(one)), "")
    *first, beyond = [*heapq.nsmallest(_SHOWN + 1, _names(root, folder)), ""][: _SHOWN + 1]
    names = ", ".join(first) or "nothing"
    return f"{folder or 'there'} has {names}{', …' if beyond else ''}"


def _candidates(root: Storage, folder: str, parts: Sequence[str]) -> Iterator[str]:
    """Yield the paths of files that fit the parts of a pattern; one without a wildcard at its end may not exist."""
    if folder.count("/") > _MAX_DEPTH:
        raise UsageError(f"{root.display_uri}/{folder[:80]}…: folders nest deeper than {_MAX_DEPTH}")
    part, *others = parts or ("",)
    if part == _ANY_FOLDERS:
        yield from _candidates(root, folder, others or ["*"])
        for name in _names(root, folder):
            if name.endswith("/") and not name.startswith("."):
                yield from _candidates(root, f"{folder}{name}", parts)
        return
    if not _WILDCARD.search(part):
        names: Iterator[str] = iter([f"{part}/" if others else part])
    else:
        names = (name for name in _names(root, folder) if _fits(name, part))
    for name in names:
        if not others and not name.endswith("/"):
            yield f"{folder}{name}"
        elif others and name.endswith("/"):
            yield from _candidates(root, f"{folder}{name}", others)


def _fits(name: str, part: str) -> bool:
    return fnmatchcase(name.rstrip("/"), part) and (part.startswith(".") or not name.startswith("."))


def _names(root: Storage, folder: str) -> Iterator[str]:
    """Yield the names in a folder, those of folders with a "/" at the end; none if there is no such folder."""
    if root.is_folder(folder.rstrip("/")):
        yield from (name for name in root.names(folder.rstrip("/")) if not name.endswith(UNFINISHED))
