"""Pointers of git-lfs: small texts that stand for files that were not fetched.

Tested in tests/curation/sources/test_lfs_pointer.py.
"""

from __future__ import annotations

LFS_POINTER = "lfs_pointer"
IS_LFS_POINTER = "it is a pointer of git-lfs, not the file itself; run git lfs pull in its repository"
LFS_START = b"version https://git-lfs"


def is_lfs_pointer(start: bytes) -> bool:
    """Return whether a file that begins with `start` is a pointer."""
    return start.startswith(LFS_START)
