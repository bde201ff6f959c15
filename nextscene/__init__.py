"""Next-scene-prediction data from captioned video, and the model trained on it.

    from nextscene import ClipDataset, Loader

    for batch in Loader(ClipDataset("data/nsp-film"), micro_batch=8):
        train(batch.video, batch.text)

Names are imported when they are first used: reading shards loads no judge, and only `Loader` and `stream` load torch.
The rooms are the folders of the repository, reached through links in this folder: `nextscene.shards` is `shards/`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextscene.common.errors import DataError, NextSceneError, StoppedError, UsageError
    from nextscene.judge.base import Question, Verdict
    from nextscene.judge.claude import ClaudeJudge
    from nextscene.judge.film import FilmJudge
    from nextscene.shards.loading.collate import Batch
    from nextscene.shards.loading.dataset import ClipDataset
    from nextscene.shards.loading.latent_dataset import LatentDataset
    from nextscene.shards.loading.loader import Loader
    from nextscene.shards.loading.mixture import Mixture
    from nextscene.shards.loading.streaming import stream

__all__ = [
    "Batch",
    "ClaudeJudge",
    "ClipDataset",
    "DataError",
    "FilmJudge",
    "LatentDataset",
    "Loader",
    "Mixture",
    "NextSceneError",
    "Question",
    "StoppedError",
    "UsageError",
    "Verdict",
    "stream",
]

_MODULE_OF = {
    "Batch": "shards.loading.collate",
    "ClaudeJudge": "judge.claude",
    "ClipDataset": "shards.loading.dataset",
    "DataError": "common.errors",
    "FilmJudge": "judge.film",
    "LatentDataset": "shards.loading.latent_dataset",
    "Loader": "shards.loading.loader",
    "Mixture": "shards.loading.mixture",
    "NextSceneError": "common.errors",
    "Question": "judge.base",
    "StoppedError": "common.errors",
    "UsageError": "common.errors",
    "Verdict": "judge.base",
    "stream": "shards.loading.streaming",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
