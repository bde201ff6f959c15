"""The shard format: written, sealed, indexed, read and loaded in batches.

Names are imported when they are first used: only `Loader`, `Batch` and `stream` import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "Batch": "collate",
    "ClipDataset": "dataset",
    "LatentDataset": "latent_dataset",
    "Loader": "loader",
    "Mixture": "mixture",
    "stream": "streaming",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.loading.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
