"""A file in an object store, read ahead: each read is a request, and each byte that is not needed costs time too."""

from __future__ import annotations

from typing import BinaryIO

from nextscene.common.sized_file import SizedFile

_FIRST = 64 << 10
_LONGEST = 16 << 20
_GROWTH = 16
_SHORTEST = 4 << 10
_SHARE = 20
"""A range between large parts that are passed over is at most 1/20 of the part before it."""


class ReadAhead(SizedFile):
    """A file whose parts are read in order, some of them passed over.

    Where only short parts are passed over, ranges grow up to 16 MiB: few requests. Where long ones are, a range has 4
    to 64 KiB: few bytes. One range is held.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(size)
        self._file = file
        self._begin = 0
        self._data = b""
        self._length = _FIRST
        self._is_dense = False

    def read_at(self, offset: int, size: int) -> bytes:
        if not self._begin <= offset <= offset + size <= self._begin + len(self._data):
            self._fill(offset, size)
        start = offset - self._begin
        return self._data[start : start + size]

    def _fill(self, offset: int, size: int) -> None:
        """Read a range. It grows when the last two began about where those before them ended."""
        gap = offset - (self._begin + len(self._data))
        is_dense = bool(self._data) and -len(self._data) <= gap <= self._length
        if is_dense and self._is_dense:
            self._length = min(_LONGEST, self._length * _GROWTH)
        elif not is_dense and self._data:
            self._length = max(_SHORTEST, min(_FIRST, gap // _SHARE))
        self._is_dense = is_dense
        self._file.seek(offset)
        self._begin, self._data = offset, self._file.read(max(size, self._length))
