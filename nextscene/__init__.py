"""Next-scene-prediction data from captioned video, and the model trained on it.

    from nextscene import ClipDataset, Loader

    for batch in Loader(ClipDataset("data/nsp-film"), micro_batch=8):
        train(batch.video, batch.text)

Names are imported when they are first used: reading shards loads no judge; only `Loader`, `evaluate` and `stream`
load torch.
The rooms are the folders of the repository, reached through links in this folder: `nextscene.shards` is `shards/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextscene.common.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from nextscene.common.errors import DataError, NextSceneError, StoppedError, UsageError
    from nextscene.evaluation.run import evaluate
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
    "evaluate",
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
    "evaluate": "evaluation.run",
    "stream": "shards.loading.streaming",
}

__getattr__, __dir__ = lazy_exports(__name__, _MODULE_OF)
