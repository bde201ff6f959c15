"""The result of an evaluation: each model's score, and how the models compare.

Tested in tests/evaluation/test_run.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import cached_property
from itertools import combinations
from typing import Any

from nextscene.evaluation.score import Score, ScoreDifference, difference, score
from nextscene.judge.call_progress import CallProgress


@dataclass(frozen=True)
class ModelResult:
    """Verdicts on the videos of one model.

    `about` is the model and its sampling settings. `rewards` has the verdicts on each scene's videos: 1 for Pass, 0 for
    Fail, None if the verdict is missing. `last_reason` is the reason of the last verdict. `usd` is the cost of all.
    """

    name: str
    about: Mapping[str, Any]
    rewards: Mapping[str, Sequence[float | None]]
    usd: Decimal
    last_reason: str

    @property
    def missing(self) -> int:
        return sum(reward is None for rewards in self.rewards.values() for reward in rewards)

    @property
    def judged(self) -> int:
        return sum(map(len, self.rewards.values())) - self.missing

    @cached_property
    def score(self) -> Score | None:
        """The score; None if no video was judged."""
        return score(self.rewards)


@dataclass(frozen=True)
class ModelDifference:
    """The score of the model `later` minus that of the model `earlier`."""

    later: str
    earlier: str
    difference: ScoreDifference


@dataclass(frozen=True)
class EvaluationResult:
    """Results of all models, in the order in which they were given. `calls` counts all calls for this folder.

    `page_failure` is why the page could not be written, "" if it was.
    """

    models: tuple[ModelResult, ...]
    calls: CallProgress
    page_failure: str = ""

    @cached_property
    def differences(self) -> tuple[ModelDifference, ...]:
        """Each model compared with those before it, on the scenes for which both have a verdict."""
        pairs = combinations(self.models, 2)
        found = ((later, earlier, difference(later.rewards, earlier.rewards)) for earlier, later in pairs)
        return tuple(ModelDifference(later.name, earlier.name, one) for later, earlier, one in found if one)

    def summary(self) -> dict[str, Any]:
        """Return scores and differences in the form of `summary.json`."""
        models = [
            {"name": one.name, **one.about, "score": one.score and asdict(one.score), "usd": str(one.usd)}
            for one in self.models
        ]
        differences = [{"of": one.later, "from": one.earlier, **asdict(one.difference)} for one in self.differences]
        return {"models": models, "differences": differences}
