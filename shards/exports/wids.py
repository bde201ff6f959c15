"""wids, which came with webdataset up to 0.2.111: one index a split, with the shards and what they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator

from shards.exports.about import About
from shards.receipt import Manifest
from shards.storage import Storage


def files(manifest: Manifest, about: About) -> Iterator[tuple[str, bytes]]:
    """(path, contents) for each split that has a sample. Readers find the shards relative to the index."""
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
        yield path(split), (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def tidy(out: Storage, manifest: Manifest) -> None:
    """Deletes the indexes of splits that have no sample any more."""
    wanted = {path(split) for split in manifest.splits}
    for name in list(out.names("")):
        if name.startswith("wids-") and name.endswith(".json") and name not in wanted:
            out.delete(name)


def path(split: str) -> str:
    return f"wids-{split}.json"
