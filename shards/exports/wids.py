"""wids, part of webdataset up to 0.2.111: one index per split, which lists the shards and their sample counts.

Tested in tests/shards/exports/test_exports.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from nextscene.common.storage import Storage
from nextscene.shards.exports.dataset_facts import DatasetFacts
from nextscene.shards.format import layout
from nextscene.shards.format.manifest import Manifest


def files(manifest: Manifest, about: DatasetFacts) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) for each split that has a sample. Readers find the shards relative to the index."""
    for split in manifest.splits:
        shards = [
            {"url": shard.path, "nsamples": shard.count, "filesize": shard.bytes} for shard in manifest.of_split(split)
        ]
        value = {
            "__kind__": "wids-shard-index-v1",
            "wids_version": 1,
            "name": f"{about.title}-{split}",
            "shardlist": shards,
        }
        yield layout.wids(split), (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def facts(data: bytes) -> Any:
    """Return what an index says of the shards."""
    return {name: value for name, value in json.loads(data).items() if name != "name"}


def delete_old_indexes(out: Storage, manifest: Manifest) -> None:
    """Delete the indexes of splits that have no sample any more."""
    gone = [layout.wids(split) for split in layout.SPLITS if split not in manifest.splits]
    for entry in out.stats(gone):
        if entry:
            out.delete(entry.path)
