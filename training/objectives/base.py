"""What every way to learn is: it takes what it needs from the batches, and leaves a gradient on the parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from nextscene.training.data.batches import TrainingBatch


class StepOutput(NamedTuple):
    """What one step was learnt from: the same on all ranks but for `keys`, which name the clips of this one.

    `numbers` are for the journal. Where `learnt` is false there was nothing in it, and there is no gradient. `note` is
    what one should be told of it, if anything.
    """

    loss: float
    numbers: Mapping[str, float]
    keys: list[str]
    learnt: bool = True
    note: str = ""


class Objective(Protocol):
    """Flow matching, or GRPO. All ranks do equally much at each step."""

    def compute_gradient(self, batches: Iterator[TrainingBatch], step: int) -> StepOutput:
        """The gradient of the step after `step` others: that of the mean over the global batch."""
        ...

    def end(self) -> None:
        """Nothing more is learnt."""
        ...
