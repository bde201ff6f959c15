"""wids, which came with webdataset up to 0.2.111: one index a split, with the shards and what they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator

from shards.exports.about import About
from shards.receipt import Manifest


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
        yield f"wids-{split}.json", (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
