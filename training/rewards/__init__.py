"""Rewards of the stage `rl`.

A new reward is a file here with a class as `rewards.base.RewardClass` describes it, and an entry in REWARDS.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from nextscene.training.rewards.base import RewardClass


class RewardEntry(NamedTuple):
    """The location of a reward's class. Its module is imported only if a recipe names the reward."""

    module: str
    class_name: str
    asks_claude: bool = False

    def load(self) -> RewardClass:
        """Return the class."""
        return cast("RewardClass", getattr(import_module(self.module), self.class_name))


REWARDS = {
    "causal_consistency": RewardEntry("nextscene.training.rewards.consistency", "CausalConsistency", asks_claude=True),
    "retrieval": RewardEntry("nextscene.training.rewards.retrieval", "Retrieval"),
    "shapes": RewardEntry("nextscene.training.rewards.shapes", "Shapes"),
}
"""Name of each reward, as `reward.kind` has it in recipes → its class."""
