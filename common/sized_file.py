"""A file object over reads by offset, for libraries that need to seek.

Tested in tests/curation/media/test_header_reader.py.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import Any, BinaryIO


class SizedFile(io.RawIOBase):
    """A read-only file of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    @abstractmethod
    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on. The range asked for is inside the file."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + position)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        wanted = left if size < 0 else min(size, left)
        data = self.read_at(self._at, wanted) if wanted else b""
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class FileWindow(SizedFile):
    """The `length` bytes of a file that begin at `offset`."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        super().__init__(length)
        self._file = file
        self._offset = offset

    def read_at(self, offset: int, size: int) -> bytes:
        self._file.seek(self._offset + offset)
        return self._file.read(size)
