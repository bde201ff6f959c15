"""Samples in their tars: read, checked, and extracted.

Tested in tests/curation/inspect/test_inspect.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from nextscene.common.errors import DamagedRecord, UsageError
from nextscene.common.storage import Storage
from nextscene.shards.format.folder_mark import NotOurs, check_folder
from nextscene.shards.format.layout import ShardName
from nextscene.shards.format.receipt import Receipt
from nextscene.shards.format.sample import Sample, type_of_clips
from nextscene.shards.format.tar import DamagedShard
from nextscene.shards.loading.reader import read_group


@dataclass(frozen=True)
class SampleFound:
    """The location and the contents of a sample. `sizes` are the bytes of its members.

    `damage` is "" if headers, checksum, record and video match; else it says what does not, and `record` is empty.
    """

    key: str
    tar: str
    offset: int
    sizes: dict[str, int]
    crc32: int
    frames: int
    width: int
    height: int
    text: str
    record: dict[str, Any]
    damage: str


class SampleReader:
    """The samples of one shard, by their number in it. Each is checked when it is read."""

    def __init__(self, out: Storage, receipt: Receipt) -> None:
        """Raise DamagedRecord for a receipt of samples that are not clips."""
        self._out = out
        self._receipt = receipt
        kind = type_of_clips(receipt.members)
        if kind is None:
            raise DamagedRecord(f"{receipt.name.receipt} is of samples of {', '.join(receipt.members)}, not of clips")
        self._kind = kind

    def read(self, number: int) -> Sample:
        """Return a sample. Raise DamagedShard if it is not whole."""
        receipt = self._receipt
        key, place, name = receipt.clip_ids[number], receipt.places[number], receipt.name
        if self._tar_damage:
            raise DamagedShard(self._tar_damage)
        group = read_group(self._out, name, key, place, receipt.members)
        if self._kind.validate(group, str(name)) != (place.frames, place.width, place.height):
            raise DamagedShard(f"{name}: sample {key!r}: its record does not give the shape that was sealed")
        return Sample.of(group, str(name))

    def find(self, number: int) -> SampleFound:
        """Return a sample with its location. Damage is returned in `damage`, not raised."""
        receipt, text, record, damage = self._receipt, "", {}, ""
        try:
            sample = self.read(number)
            text, record = sample.text.decode("utf-8", "replace"), asdict(sample.record)
        except DamagedShard as error:
            damage = str(error)
        place = receipt.places[number]
        sizes = {member: size for member, _, size in place.slices(receipt.members)}
        return SampleFound(
            receipt.clip_ids[number],
            receipt.name.tar,
            place.offset,
            sizes,
            place.crc32,
            place.frames,
            place.width,
            place.height,
            text,
            record,
            damage,
        )

    @cached_property
    def _tar_damage(self) -> str:
        name, sealed = self._receipt.name, self._receipt.bytes
        entry = self._out.stat(name.tar)
        if entry is None:
            return f"{name}: {name.tar} is missing"
        return "" if entry.size == sealed else f"{name}: {name.tar} has {entry.size:,} bytes, {sealed:,} were sealed"


def extract(out: Storage, name: ShardName, keys: Sequence[str], folder: Storage) -> list[str]:
    """Write the members of a shard's samples as `<key>.<member>` into `folder`, and return these names.

    Raise UsageError before anything is written if a name exists already. Raise DamagedShard at the first sample that is
    not whole; the samples before it are then written.
    """
    receipt = Receipt.read(out, name)
    try:
        check_folder(folder)
    except NotOurs as mistake:
        raise UsageError(f"`folder` {mistake}") from mistake
    numbers = {key: receipt.clip_ids.index(key) for key in keys}
    names = [
        f"{key}.{member}" for key, at in numbers.items() for member, _, _ in receipt.places[at].slices(receipt.members)
    ]
    for entry in folder.stats(names):
        if entry is not None:
            raise UsageError(f"`folder` {folder.display_uri}: {entry.path} is there already; name another folder")
    reader = SampleReader(out, receipt)
    for key, number in numbers.items():
        for member, data in reader.read(number).members.items():
            if not folder.create(f"{key}.{member}", data):
                raise UsageError(f"`folder` {folder.display_uri}: {key}.{member} is there already; it stays as it is")
    return names
