"""The shard format: written, sealed, indexed, read and loaded in batches.

Names are imported when they are first used: only `Loader`, `Batch` and `stream` import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextscene.common.lazy_exports import lazy_exports

if __name__ != "nextscene.shards":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.shards")

if TYPE_CHECKING:
    from nextscene.shards.loading.collate import Batch
    from nextscene.shards.loading.dataset import ClipDataset
    from nextscene.shards.loading.latent_dataset import LatentDataset
    from nextscene.shards.loading.loader import Loader
    from nextscene.shards.loading.mixture import Mixture
    from nextscene.shards.loading.streaming import stream

__all__ = ["Batch", "ClipDataset", "LatentDataset", "Loader", "Mixture", "stream"]

_MODULE_OF = {
    "Batch": "loading.collate",
    "ClipDataset": "loading.dataset",
    "LatentDataset": "loading.latent_dataset",
    "Loader": "loading.loader",
    "Mixture": "loading.mixture",
    "stream": "loading.streaming",
}

__getattr__, __dir__ = lazy_exports(__name__, _MODULE_OF)
