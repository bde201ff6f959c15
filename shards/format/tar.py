"""The tar of a shard: deterministic when written, and strict when read, so that no damage goes unnoticed.

Plain USTAR, one-block headers, the members of each sample in one order, mtime 0, uid and gid 0, mode 0644. Every common
tar reader opens it. This reader also refuses what those skip silently: a file cut between members, a broken header
taken for the end, a header or padding other than written here, a missing or repeated member, bytes after the end.
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from nextscene.common.errors import DataError

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
MAX_MEMBER_BYTES = 1 << 30


class DamagedShard(DataError):
    """A tar that is not as it was written. The message names the shard, the sample and the fault."""


def group_bytes(key: str, contents: Mapping[str, bytes]) -> bytes:
    """Return the members of one sample as they are in a tar: headers and padded contents, without the end mark."""
    pieces = []
    for member, data in contents.items():
        pieces += [_header(f"{key}.{member}", len(data)), data, bytes(-len(data) % BLOCK)]
    return b"".join(pieces)


def _header(name: str, size: int) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = size
    header.mode = 0o644
    return header.tobuf(tarfile.USTAR_FORMAT)


@dataclass(frozen=True)
class MemberGroup:
    """The members of a sample, name → contents, in order, and the offset of its first header in the tar."""

    offset: int
    key: str
    contents: Mapping[str, bytes]


def read_groups(
    file: BinaryIO, shard: str, members: Sequence[str], optional: Collection[str] = ()
) -> Iterator[MemberGroup]:
    """Yield the samples of a whole tar, in order, each checked for form. Raise DamagedShard, naming `shard`.

    A sample may lack the `optional` members, but not the last one.
    """
    keys: set[str] = set()
    while True:
        offset = file.tell()
        first = file.read(BLOCK)
        if first == bytes(BLOCK):
            _expect_end(file, shard)
            return
        contents: dict[str, bytes] = {}
        key, left = "", list(members)
        while left:
            header = file.read(BLOCK) if contents else first
            name, data = _read_member(file, header, shard, key)
            if not contents:
                key = name.partition(".")[0]
            required = next(place for place, member in enumerate(left) if member not in optional)
            expected = left[: required + 1]
            member = name.removeprefix(f"{key}.")
            if member not in expected:
                raise DamagedShard(f"{shard}: sample {key!r}: expected {key}.{' or '.join(expected)}, found {name}")
            contents[member] = data
            left = left[left.index(member) + 1 :]
        if key in keys:
            raise DamagedShard(f"{shard}: sample {key!r} is there twice")
        keys.add(key)
        yield MemberGroup(offset, key, contents)


def _read_member(file: BinaryIO, header: bytes, shard: str, key: str) -> tuple[str, bytes]:
    where = f"{shard}: {f'sample {key!r}' if key else f'byte {file.tell() - len(header)}'}"
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise DamagedShard(f"{where}: {error if len(header) == BLOCK else 'the file is cut short'}") from error
    if not info.isreg() or info.size > MAX_MEMBER_BYTES:
        raise DamagedShard(f"{where}: {info.name} is not a plain file of at most {MAX_MEMBER_BYTES} bytes")
    data = file.read(info.size)
    padding = file.read(-info.size % BLOCK)
    if len(data) < info.size or len(padding) < -info.size % BLOCK:
        raise DamagedShard(f"{where}: {info.name} is cut short")
    # The checksum of a header does not cover the whole header, and nothing covers the padding.
    if header != _header(info.name, info.size) or padding.strip(b"\0"):
        raise DamagedShard(f"{where}: {info.name} has a header or padding that was not written so")
    return info.name, data


def _expect_end(file: BinaryIO, shard: str) -> None:
    if file.read(BLOCK) != bytes(BLOCK):
        raise DamagedShard(f"{shard}: the end mark is incomplete")
    if file.read(1):
        raise DamagedShard(f"{shard}: bytes follow the end mark")
