"""Interface of a training objective: consume micro-batches, accumulate gradients.

Tested in tests/training/test_trainer.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from nextscene.training.data.batches import TrainingBatch


class StepOutput(NamedTuple):
    """The outcome of one optimizer step, the same on all ranks except for `keys`, the clips of this rank.

    `metrics` are logged. `has_gradient` is False if the step taught nothing and its update must be skipped. `note` is a
    line for the user, or "".
    """

    loss: float
    metrics: Mapping[str, float]
    keys: list[str]
    has_gradient: bool = True
    note: str = ""


class Objective(Protocol):
    """A training objective: flow matching or GRPO. All ranks do the same amount of work in each step."""

    def compute_gradient(self, batches: Iterator[TrainingBatch], step: int) -> StepOutput:
        """Accumulate the gradient of the mean loss over the global batch on the parameters.

        `step` is the number of steps taken before.
        """
        ...

    def flush(self) -> None:
        """Finish what is done in the background. All ranks call this alike, before each checkpoint and at the end."""
        ...

    def close(self) -> None:
        """Release the resources of the objective."""
        ...
