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
class Piece:
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
        nexts = _successor(self.mark)
        last = "9" if self.mark.isdigit() else "z"
        if nexts[0].lower() == last and self.mark[0].lower() != last:
            zero = "0" if self.mark.isdigit() else "a"
            return f"{self.stem}{nexts}", f"{self.stem}{nexts[0]}{zero * len(self.mark)}"
        return (f"{self.stem}{nexts}",)

    @property
    def first(self) -> str:
        return f"{self.stem}{'0' * len(self.mark) if self.mark.isdigit() else 'a' * len(self.mark)}"


def archive_suffix(name: str) -> str:
    """Return the suffix of an archive that is whole; "" if the name is not that of one."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")


def is_archive(name: str) -> bool:
    """Return whether a name is that of an archive, or of a piece of one."""
    return bool(archive_suffix(name)) or piece_of(name) is not None


def piece_of(name: str) -> Piece | None:
    """Return what a name says as that of a piece; None for any other name."""
    if archive_suffix(name) or not (found := _PIECE.fullmatch(name)):
        return None
    stem = found["stem"] or found["stem_"] or found["bare"]
    mark = found["number"] or found["letters"] or found["letters_"]
    return Piece(stem, mark, (found["suffix"] or found["suffix_"] or "").lower())


def grouped(names: Iterable[str]) -> list[list[str]]:
    """Return the archives among the names, sorted, each as the names of its pieces in order; leave out all others.

    Letters count as the mark of a piece if the name says `part` or `split`, or if the first piece is there.
    """
    whole: list[list[str]] = []
    pieces: dict[str, list[tuple[Piece, str]]] = defaultdict(list)
    for name in names:
        if archive_suffix(name):
            whole.append([name])
        elif piece := piece_of(name):
            pieces[piece.stem].append((piece, name))
    for group in pieces.values():
        group.sort(key=lambda one: one[0].order)
        if group[0][0].is_first or group[0][0].mark.isdigit() or re.search("(?i)(split|part)[._-]?$", group[0][0].stem):
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


def next_piece(name: str) -> str:
    """Return the name of the piece after one; "" if it is not that of a piece."""
    piece = piece_of(name)
    return piece.following[0] if piece else ""


def _successor(mark: str) -> str:
    """Return the mark after one: 009 → 010, ab → ac, az → ba."""
    if mark.isdigit():
        return str(int(mark) + 1).zfill(len(mark))
    head, last = mark[:-1], mark[-1]
    if last.lower() != "z":
        return head + chr(ord(last) + 1)
    return (_successor(head) if head else "") + ("a" if last == "z" else "A")
