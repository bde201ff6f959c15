"""Training objectives: flow matching, and GRPO on rewards.

A new objective is a file here with a class as `objectives.base.Objective` describes it, and an entry in OBJECTIVES.
"""

from __future__ import annotations

from collections.abc import Callable

from nextscene.training.metrics.throughput import Throughput
from nextscene.training.objectives.base import Objective
from nextscene.training.objectives.flow_matching import FlowMatching
from nextscene.training.objectives.grpo.grpo import Grpo
from nextscene.training.stage import StageState

OBJECTIVES: dict[str, Callable[[StageState, Throughput], Objective]] = {"flow_matching": FlowMatching, "grpo": Grpo}
"""Name of each objective, as `recipe.STAGES` has it → its class."""
