"""SHA256SUMS: the sha256 of every published file, as it was written. `sha256sum -c SHA256SUMS` proves a copy."""

from __future__ import annotations

import re

from nextscene.common.errors import DamagedRecord
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import CHECKSUMS

Checksums = dict[str, str]
"""Path → sha256 in hexadecimal digits."""

NOT_LISTED = f"{CHECKSUMS} does not list it"
"""Its own fault, and not that of the file."""

_LINE = re.compile(r"([0-9a-f]{64})  ([^\r\n]+)\n")


def read_checksums(out: Storage) -> Checksums | None:
    """None where there is no such file. Raise DamagedRecord for one that `write_checksums` did not write."""
    try:
        data = out.read(CHECKSUMS)
    except FileNotFoundError:
        return None
    sums = {path: sha256 for sha256, path in _LINE.findall(data.decode(errors="replace"))}
    if not sums or _lines(sums) != data:
        raise DamagedRecord(f"{CHECKSUMS} was changed; delete it and run the build again to write it anew")
    return sums


def write_checksums(out: Storage, sums: Checksums) -> None:
    """Publish the lines. Until then OUT has no such file: a run deletes it before it changes what it lists."""
    out.write(CHECKSUMS, _lines(sums))


def update_checksum(out: Storage, path: str, sha256: str) -> None:
    """Bring the line of a file that was written anew up to date, if there are lines. Raise DamagedRecord."""
    sums = read_checksums(out)
    if sums is not None:
        write_checksums(out, {**sums, path: sha256})


class ListedChecksums:
    """What SHA256SUMS lists, compared line by line with what there is; without the file, nothing is compared."""

    def __init__(self, sums: Checksums | None) -> None:
        self._sums = sums
        self.left = dict(sums or {})
        self.total = len(self.left)
        self.compared = 0

    def fault(self, path: str, sha256: str) -> str:
        """What is wrong with a file of this hash; "" for nothing."""
        if self._sums is None:
            return ""
        if path not in self._sums:
            return NOT_LISTED
        self.left.pop(path, None)
        self.compared += 1
        return "" if self._sums[path] == sha256 else f"it is not the file that was written, by {CHECKSUMS}"


def _lines(sums: Checksums) -> bytes:
    return "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(sums.items())).encode()
