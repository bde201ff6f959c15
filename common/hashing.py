"""The SHA-256 of a file: open, on the local disk, or in a storage."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from nextscene.common.storage import Storage

_PIECE_BYTES = 1 << 20


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of an open file, from its first byte to its last, in hexadecimal digits."""
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def path_sha256(path: Path) -> str:
    """Return the SHA-256 of a local file. Raise OSError."""
    with path.open("rb") as file:
        return sha256_of(file)


def file_sha256(out: Storage, path: str) -> str:
    """Return the SHA-256 of a file in a storage. Raise FileNotFoundError, StorageFault."""
    with out.open(path) as file:
        return sha256_of(file)
