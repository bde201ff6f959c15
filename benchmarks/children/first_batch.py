"""Open a dataset and take the first micro-batch: `first_batch LOCATION MICRO_BATCH WORKERS`.

It prints seconds: of the import beforehand, of everything from `ClipDataset(…)` to the batch, and of the steps of that.
The steps are repeated one by one, without any state of the first time except the disk's cache.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TypeVar

begun = time.perf_counter()

from nextscene.common.storage import Storage  # noqa: E402
from nextscene.shards.format.index import Index  # noqa: E402
from nextscene.shards.format.manifest import Manifest  # noqa: E402
from nextscene.shards.loading.dataset import ClipDataset  # noqa: E402
from nextscene.shards.loading.loader import Loader  # noqa: E402

imported = time.perf_counter() - begun

T = TypeVar("T")


def main(location: str, micro_batch: int, workers: int) -> None:
    begun = time.perf_counter()
    batch = next(iter(Loader(ClipDataset(location), micro_batch=micro_batch, workers=workers)))
    seconds = time.perf_counter() - begun
    figures = {"import": imported, "seconds": seconds, "frames": batch.video.shape[0] * batch.video.shape[1]}
    print(json.dumps(figures | {"steps": steps(location, micro_batch)}))


def steps(location: str, micro_batch: int) -> dict[str, float]:
    taken: dict[str, float] = {}

    def timed(name: str, step: Callable[[], T]) -> T:
        begun = time.perf_counter()
        value = step()
        taken[name] = time.perf_counter() - begun
        return value

    out = Storage.at(location)
    manifest = timed("manifest", lambda: Manifest.read(out))
    index = timed("index", lambda: Index.read(out, manifest, "train"))
    timed("files there", lambda: out.stats([shard.path for shard in index.shards]))
    clips = ClipDataset(location)
    loader = timed("buckets and identity", lambda: Loader(clips, micro_batch=micro_batch))
    draws = timed("order", lambda: next(loader._order.batches()))
    timed("decoding", lambda: [clips[draw.number] for draw in draws])
    return taken


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
