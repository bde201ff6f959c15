"""The checksums in SHA256SUMS: the SHA-256 of every published file. `sha256sum -c SHA256SUMS` checks a copy.

Tested in tests/curation/verify/test_verify.py.
"""

from __future__ import annotations

import re

from nextscene.common.errors import DamagedRecord
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import CHECKSUMS

Checksums = dict[str, str]
"""Path → sha256 in hexadecimal digits."""

NOT_LISTED = f"{CHECKSUMS} does not list it"
"""A fault of SHA256SUMS, and not of the file."""

_LINE = re.compile(r"([0-9a-f]{64})  ([^\r\n]+)\n")


def read_checksums(out: Storage) -> Checksums | None:
    """Return the checksums, or None if there is no such file. Raise DamagedRecord for one that was changed."""
    try:
        data = out.read(CHECKSUMS)
    except FileNotFoundError:
        return None
    checksums = {path: sha256 for sha256, path in _LINE.findall(data.decode(errors="replace"))}
    if not checksums or _lines(checksums) != data:
        raise DamagedRecord(f"{CHECKSUMS} was changed; delete it and run the build again to write it")
    return checksums


def write_checksums(out: Storage, checksums: Checksums) -> None:
    """Publish the checksums. A run deletes the file before it changes any listed file."""
    out.write(CHECKSUMS, _lines(checksums))


def update_checksum(out: Storage, path: str, sha256: str) -> None:
    """Replace the checksum of a file that was written again, if there are checksums. Raise DamagedRecord."""
    checksums = read_checksums(out)
    if checksums is not None:
        write_checksums(out, {**checksums, path: sha256})


class ListedChecksums:
    """The checksums that SHA256SUMS lists, compared one by one with the files; without it, nothing is compared."""

    def __init__(self, checksums: Checksums | None) -> None:
        self._checksums = checksums
        self.left = dict(checksums or {})
        self.total = len(self.left)
        self.compared = 0

    def fault(self, path: str, sha256: str) -> str:
        """Return what is wrong with a file of this SHA-256, or ""."""
        if self._checksums is None:
            return ""
        if path not in self._checksums:
            return NOT_LISTED
        self.left.pop(path, None)
        self.compared += 1
        return "" if self._checksums[path] == sha256 else f"it is not the file that was written, by {CHECKSUMS}"


def _lines(checksums: Checksums) -> bytes:
    return "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(checksums.items())).encode()
