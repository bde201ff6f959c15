"""Files that were split into pieces, each read as the one file that they are pieces of."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from nextscene.common.filesystem import BadLocation
from nextscene.common.sized_file import SizedFile
from nextscene.common.storage import Storage
from nextscene.common.storage_reader import Entry

T = TypeVar("T")
SEPARATOR = "\0"
"""The character between the paths of the pieces. The name of a file cannot have it."""


def pieces_of(path: str) -> list[str]:
    """Return the paths of a file's pieces; of a file that is whole, its own."""
    return path.split(SEPARATOR)


class JoinedStorage(Storage):
    """Files in pieces, to be read only. The path of such a file is those of its pieces, joined by SEPARATOR."""

    def stats(self, paths: list[str]) -> list[Entry | None]:
        """Return each file with the sum of its pieces' sizes and the latest of their times; None if one is missing."""
        pieces = [pieces_of(path) for path in paths]
        found = iter(super().stats([piece for of_one in pieces for piece in of_one]))
        return [_joined(path, [next(found) for _ in of_one]) for path, of_one in zip(paths, pieces, strict=True)]

    def local_path(self, path: str) -> Path | None:
        """Return None: the file is not in one place."""
        return None

    def local_files(self, path: str) -> tuple[Path, ...]:
        return tuple(file for piece in pieces_of(path) if (file := super(JoinedStorage, self).local_path(piece)))

    def has_parent_of(self, path: str) -> bool:
        return Storage(self.uri).has_parent_of(pieces_of(path)[0])

    def _input(self, path: str) -> BinaryIO:
        pieces = pieces_of(path)
        entries = super().stats(pieces)
        sizes = [entry.size for entry in entries if entry]
        if len(sizes) < len(pieces):
            raise FileNotFoundError(pieces[entries.index(None)])
        open_one = super()._input
        return cast(BinaryIO, JoinedFile(sizes, lambda number: open_one(pieces[number])))

    def _try(self, verb: str, path: str, action: Callable[[], T]) -> T:
        return super()._try(verb, path.replace(SEPARATOR, " + "), action)


def join_places(places: Sequence[tuple[Storage, str]]) -> tuple[Storage, str]:
    """Return the storage and path of the file whose pieces are in `places`. Raise BadLocation if they lie apart."""
    storages = {storage.uri for storage, _ in places}
    if len(storages) > 1:
        raise BadLocation(f"{places[0][1]!r} and its further pieces are in several folders; move them into one")
    return JoinedStorage(storages.pop()), SEPARATOR.join(path for _, path in places)


def open_local_files(files: Sequence[Path]) -> BinaryIO:
    """Return the file whose pieces are `files`, open for reading. Raise OSError."""
    if len(files) == 1:
        return files[0].open("rb")
    return cast(BinaryIO, JoinedFile([file.stat().st_size for file in files], lambda number: files[number].open("rb")))


class JoinedFile(SizedFile):
    """A file in pieces of the given sizes. The piece that was read last stays open."""

    def __init__(self, sizes: Sequence[int], open_piece: Callable[[int], BinaryIO]) -> None:
        self._begins = [0, *accumulate(sizes)]
        super().__init__(self._begins[-1])
        self._open_piece = open_piece
        self._number = -1
        self._piece: BinaryIO | None = None

    def read_at(self, offset: int, size: int) -> bytes:
        data = b""
        while size and (number := bisect_right(self._begins, offset) - 1) < len(self._begins) - 1:
            part = self._read_piece(number, offset - self._begins[number], min(size, self._begins[number + 1] - offset))
            if not part:
                break  # the piece has become shorter
            data, offset, size = data + part if data else part, offset + len(part), size - len(part)
        return data

    def _read_piece(self, number: int, offset: int, size: int) -> bytes:
        if self._piece is None or self._number != number:
            self.close_piece()
            self._piece, self._number = self._open_piece(number), number
        self._piece.seek(offset)
        return self._piece.read(size)

    def close_piece(self) -> None:
        if self._piece is not None:
            self._piece.close()
            self._piece = None

    def close(self) -> None:
        self.close_piece()
        super().close()


def _joined(path: str, pieces: Sequence[Entry | None]) -> Entry | None:
    there = [piece for piece in pieces if piece]
    if len(there) < len(pieces):
        return None
    return Entry(path, sum(piece.size for piece in there), max(piece.mtime_ns for piece in there))
