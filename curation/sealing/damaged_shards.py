"""The files of damaged shards that a user deletes, so that the next run makes these shards anew.

Tested in tests/curation/verify/test_verify.py.
"""

from __future__ import annotations

from collections.abc import Collection

from nextscene.common.errors import DamagedRecord
from nextscene.common.storage import Storage
from nextscene.shards.format.layout import MANIFEST, ShardName
from nextscene.shards.format.manifest import Manifest


def files_to_delete(out: Storage, shards: Collection[ShardName]) -> tuple[str, ...]:
    """Return the paths of the files of these sealed shards that exist.

    The manifest is one of them if no receipt of its shards would be left: a run takes that for a missing disk.
    """
    files = [path for name in shards for path in (name.tar, name.offsets, name.receipt, name.ledger)]
    if shards and not _lists_another(out, shards):
        files.append(MANIFEST)
    return tuple(path for path in files if out.stat(path))


def _lists_another(out: Storage, shards: Collection[ShardName]) -> bool:
    """Return whether the manifest lists a shard that is not one of `shards` and has its receipt."""
    try:
        listed = [shard.name for shard in Manifest.read(out).shards]
    except (FileNotFoundError, DamagedRecord):
        return True  # a run then refuses nothing
    return any(name not in shards and out.stat(name.receipt) for name in listed)
