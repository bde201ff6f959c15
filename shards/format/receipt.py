"""The receipt of a sealed shard: its checksum and the location of each sample in its tar."""

from __future__ import annotations

import builtins
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from nextscene.common.errors import DamagedRecord
from nextscene.common.storage import Storage
from nextscene.common.strict_json import check_types, parse_json
from nextscene.shards.format.layout import SHARDS, ShardName
from nextscene.shards.format.sample import KEY
from nextscene.shards.format.sample_type import Shape
from nextscene.shards.format.tar import BLOCK, END, MAX_MEMBER_BYTES

ABSENT = -1
"""The size of a member that a sample does not have."""


class SampleLocation(NamedTuple):
    """The location of a sample in its tar, and its shape.

    `offset` is that of its first header. `sizes` are the bytes of its members, in order, or ABSENT: each that it has
    follows a header of one block and is padded to whole blocks. `crc32` covers all of that.
    """

    offset: int
    sizes: tuple[int, ...]
    crc32: int
    frames: int
    width: int
    height: int

    @property
    def end(self) -> int:
        """Return the offset of the next sample, or of the end mark."""
        return self._edges()[-1]

    @property
    def contents(self) -> list[int]:
        """Return the offset of the content of each member; for one that is absent, it has no meaning."""
        return [edge + BLOCK for edge in self._edges()[:-1]]

    def slices(self, members: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        """Yield name, offset and size of each member that the sample has, in order."""
        for member, offset, size in zip(members, self.contents, self.sizes, strict=True):
            if size != ABSENT:
                yield member, offset, size

    def _edges(self) -> list[int]:
        blocks = (0 if size == ABSENT else BLOCK + -(-size // BLOCK) * BLOCK for size in self.sizes)
        return list(accumulate(blocks, initial=self.offset))


@dataclass(frozen=True)
class Receipt:
    """The receipt of a sealed shard. `bytes` and `sha256` are of its tar; without kept clips there is no tar, 0 and "".

    `clip_ids` and `places` are parallel, in the order of the tar. `ledger_sha256` is of its ledger file; "" if there is
    no ledger, or if an older version sealed the shard.
    """

    split: str
    index: int
    revision: int
    sha256: str
    bytes: int
    count: int
    members: tuple[str, ...]
    clip_ids: tuple[str, ...]
    places: tuple[SampleLocation, ...]
    ledger_sha256: str = ""

    @staticmethod
    def empty(name: ShardName, members: tuple[str, ...]) -> Receipt:
        return Receipt(name.split, name.index, name.revision, "", 0, 0, members, (), ())

    @property
    def name(self) -> ShardName:
        return ShardName(self.split, self.index, self.revision)

    @property
    def offsets(self) -> builtins.bytes:
        """Return Energon's `.tar.idx`: little-endian uint64, the start of each sample, then the end of the last one."""
        starts = [place.offset for place in self.places]
        return np.array([*starts, self.places[-1].end if self.places else 0], dtype="<u8").tobytes()

    @property
    def checksums(self) -> dict[str, str]:
        """Return path → SHA-256 of each of the shard's files, as far as known."""
        name = self.name
        tar = {name.tar: self.sha256, name.offsets: _sha256(self.offsets)} if self.count else {}
        ledger = {name.ledger: self.ledger_sha256} if self.ledger_sha256 else {}
        return {**tar, name.receipt: _sha256(self.to_bytes()), **ledger}

    def to_bytes(self) -> builtins.bytes:
        value = vars(self) | {"places": [[p.offset, *p.sizes, *p[2:]] for p in self.places]}
        if not self.ledger_sha256:
            del value["ledger_sha256"]
        return canonical_json(value, indent=None)

    def publish(self, out: Storage) -> None:
        out.write(self.name.receipt, self.to_bytes())

    @staticmethod
    def read(out: Storage, name: ShardName) -> Receipt:
        """Return the receipt of a shard. Raise FileNotFoundError, or DamagedRecord if it is another shard's or
        inconsistent.
        """
        try:
            receipt = Receipt._of(parse_json(out.read(name.receipt)))
        except ValueError as error:
            raise DamagedRecord(f"{name.receipt} is not a receipt: {error}") from error
        if receipt.name != name:
            raise DamagedRecord(f"{name.receipt} is the receipt of {receipt.name}")
        if not receipt._adds_up():
            raise DamagedRecord(f"{name.receipt} is inconsistent: its clips do not fill {receipt.bytes:,} bytes")
        return receipt

    @staticmethod
    def _of(value: Any) -> Receipt:
        fields = check_types({"ledger_sha256": "", **value} if isinstance(value, dict) else value, _RECEIPT)
        members, clip_ids = tuple(fields["members"]), tuple(fields["clip_ids"])
        if not members or len({*members}) < len(members) or not all(type(member) is str for member in members):
            raise ValueError(f"'members' are {members!r:.100}")
        if not all(type(key) is str and KEY.fullmatch(key) for key in clip_ids):
            raise ValueError("'clip_ids' are not all keys")
        places = tuple(_place(numbers, len(members)) for numbers in fields["places"])
        return Receipt(**{**fields, "members": members, "clip_ids": clip_ids, "places": places})

    def _adds_up(self) -> bool:
        """Return whether samples of bounded size fill the tar without a gap, from its first byte to its end mark."""
        if not self.count == len(self.clip_ids) == len(self.places):
            return False
        edges = [0, *(place.end for place in self.places)]
        fill = all(place.offset == edge for place, edge in zip(self.places, edges, strict=False))
        bounded = all(ABSENT <= size <= MAX_MEMBER_BYTES for place in self.places for size in place.sizes)
        return fill and bounded and self.bytes == (edges[-1] + len(END) if self.count else 0)


_RECEIPT = {
    "split": str,
    "index": int,
    "revision": int,
    "sha256": str,
    "bytes": int,
    "count": int,
    "members": list,
    "clip_ids": list,
    "places": list,
    "ledger_sha256": str,
}


def _place(numbers: Any, members: int) -> SampleLocation:
    if type(numbers) is not list or len(numbers) != members + 5 or not all(type(number) is int for number in numbers):
        raise ValueError(f"a place of {members} members is {numbers!r:.100}")
    place = SampleLocation(numbers[0], tuple(numbers[1 : members + 1]), *numbers[members + 1 :])
    if not (0 <= place.crc32 < 1 << 32 and Shape(*place[3:]).is_possible):
        raise ValueError(f"a sample with the checksum {place.crc32} and the shape {place[3:]}")
    return place


def sealed_shards(out: Storage) -> dict[tuple[str, int], ShardName]:
    """Return the newest revision of each shard that has a receipt, by (split, index)."""
    return sealed_and_partial(out)[0]


def sealed_and_partial(out: Storage) -> tuple[dict[tuple[str, int], ShardName], frozenset[ShardName]]:
    """Return `sealed_shards`, and those of them that were sealed before all their clips were decided."""
    newest: dict[tuple[str, int], ShardName] = {}
    marked = set()
    for entry in out.files(SHARDS, recursive=True):
        name = ShardName.of(entry.path)
        if name is not None and entry.path == name.receipt:
            place = (name.split, name.index)
            newest[place] = max(name, newest.get(place, name))
        elif name is not None and entry.path == name.partial:
            marked.add(name)
    return dict(sorted(newest.items())), frozenset(marked.intersection(newest.values()))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any, indent: int | None = 1) -> bytes:
    return (json.dumps(value, indent=indent, sort_keys=True) + "\n").encode()
