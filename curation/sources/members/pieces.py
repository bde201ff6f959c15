"""Archives that were split into pieces: which names belong together, and which piece is missing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""The suffixes of the archives that can be read."""

_SUFFIX = "|".join(map(re.escape, SUFFIXES))
_PIECE = re.compile(
    rf"(?P<stem>.+(?P<suffix>{_SUFFIX})[._-](?:(?:split|part)[._-]?)?)(?P<number>\d{{1,6}})"
    rf"|(?P<stem_>.+(?P<suffix_>{_SUFFIX})[._-](?:(?:split|part)[._-]?)?)(?P<letters>[a-z]{{2,6}})"
    r"|(?P<bare>.+_part)(?P<letters_>[a-z]{2,6})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class PieceName:
    """The name of a piece of an archive: all but its mark, its mark, and the archive's suffix, "" if it has none."""

    stem: str
    mark: str
    suffix: str

    @property
    def order(self) -> tuple[int, str]:
        return (int(self.mark), "") if self.mark.isdigit() else (0, self.mark)

    @property
    def is_first(self) -> bool:
        return int(self.mark) <= 1 if self.mark.isdigit() else not self.mark.strip("aA")

    @property
    def following(self) -> tuple[str, ...]:
        """Return the names that the next piece may have. The second is that of GNU split, which lengthens marks."""
        plain = _successor(self.mark)
        zero, last = "09" if self.mark.isdigit() else "az"
        counting = self.mark.lstrip(last)
        if counting and _successor(counting).startswith(last):
            longer = last * (len(self.mark) - len(counting) + 1) + zero * (len(counting) + 1)
            return f"{self.stem}{plain}", f"{self.stem}{longer}"
        return (f"{self.stem}{plain}",)

    @property
    def is_plain(self) -> bool:
        """Return whether the name is that of a piece even without the first one beside it."""
        return self.mark.isdigit() or self.stem.lower().rstrip("._-").endswith(("split", "part"))

    @property
    def first(self) -> str:
        return f"{self.stem}{'0' * len(self.mark) if self.mark.isdigit() else 'a' * len(self.mark)}"


def archive_suffix(name: str) -> str:
    """Return the suffix of an archive that is whole; "" if the name is not that of one."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")


def is_archive(name: str) -> bool:
    """Return whether a name is that of an archive, or of a piece of one."""
    return bool(archive_suffix(name)) or piece_of(name) is not None


def piece_of(name: str) -> PieceName | None:
    """Return what a name says as that of a piece; None for any other name."""
    if archive_suffix(name) or not (found := _PIECE.fullmatch(name)):
        return None
    stem = found["stem"] or found["stem_"] or found["bare"]
    mark = found["number"] or found["letters"] or found["letters_"]
    return PieceName(stem, mark, (found["suffix"] or found["suffix_"] or "").lower())


def grouped(names: Iterable[str]) -> list[list[str]]:
    """Return the archives among the names, sorted, each as the names of its pieces in order; leave out all others.

    Without the first piece, several others are an archive, if they have numbers or say `part` or `split`.
    """
    whole: list[list[str]] = []
    pieces: dict[str, list[tuple[PieceName, str]]] = defaultdict(list)
    for name in names:
        if archive_suffix(name):
            whole.append([name])
        elif piece := piece_of(name):
            pieces[piece.stem].append((piece, name))
    for group in pieces.values():
        group.sort(key=lambda one: one[0].order)
        if group[0][0].is_first or (len(group) > 1 and group[0][0].is_plain):
            whole.append([name for _, name in group])
    return sorted(whole)


def missing_piece(names: Sequence[str]) -> str:
    """Return the name of the first piece that is missing before the last of these; "" if none is."""
    pieces = [piece for name in names if (piece := piece_of(name))]
    if pieces and not pieces[0].is_first:
        return pieces[0].first
    for piece, name in zip(pieces, names[1:], strict=False):
        if name not in piece.following:
            return piece.following[0]
    return ""


def neighbors(names: Sequence[str]) -> list[str]:
    """Return the names of the pieces that may be missing before the first and after the last of these."""
    first, last = piece_of(names[0]), piece_of(names[-1])
    zero = [first.first] if first and first.mark.isdigit() and int(first.mark) == 1 else []
    return [*zero, *(last.following[:1] if last else ())]


def _successor(mark: str) -> str:
    """Return the mark after one: 009 → 010, ab → ac, az → ba."""
    if mark.isdigit():
        return str(int(mark) + 1).zfill(len(mark))
    head, last = mark[:-1], mark[-1]
    if last.lower() != "z":
        return head + chr(ord(last) + 1)
    return (_successor(head) if head else "") + ("a" if last == "z" else "A")
