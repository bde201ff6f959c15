"""Evaluation of models by the videos that they generate: `evaluate`, and its scenes, scores and comparisons.

Names are imported when they are first used: `evaluate` imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextscene.common.lazy_exports import lazy_exports

if __name__ != "nextscene.evaluation":  # one module under two names would be two modules
    raise ImportError(f"{__name__} is a part of nextscene; import nextscene.evaluation")

if TYPE_CHECKING:
    from nextscene.evaluation.comparison import EvaluationResult, ModelResult
    from nextscene.evaluation.run import evaluate
    from nextscene.evaluation.scenes import dataset_scenes
    from nextscene.evaluation.score import Score

__all__ = ["EvaluationResult", "ModelResult", "Score", "dataset_scenes", "evaluate"]

_MODULE_OF = {
    "EvaluationResult": "comparison",
    "ModelResult": "comparison",
    "Score": "score",
    "dataset_scenes": "scenes",
    "evaluate": "run",
}

__getattr__, __dir__ = lazy_exports(__name__, _MODULE_OF)
