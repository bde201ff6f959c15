"""A recipe: one stage of training with its parameters, data, objective, optimizer and length.

The recipes in the folder `recipes/` are the stages of the paper; those in `recipes/tiny/` are for the toy model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from nextscene.common.config_loader import flat, renamed_settings, setting
from nextscene.training.config import (
    DataConfig,
    LoggingConfig,
    MixConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ParallelConfig,
    PolicyConfig,
    RewardConfig,
)
from nextscene.training.rewards import REWARDS

STAGES = {"connector": "flow_matching", "generator": "flow_matching", "sft": "flow_matching", "rl": "grpo"}
"""Stage → name of its objective in `training.objectives.OBJECTIVES`, in the order of the stages.

A new stage is an entry here, and a file in `recipes/`.
"""

_MIN_POSITIVE = 1e-300
_MAX = {int: 2**63 - 1, float: 1e30}
_MAY_BE_ZERO = {
    "seed",
    "epochs",
    "steps",
    "data.workers",
    "data.max_bad_clips",
    "model.hidden",
    "objective.dropout",
    "objective.density.tails",
    "optimizer.lr",
    "optimizer.beta1",
    "optimizer.beta2",
    "optimizer.weight_decay",
    "optimizer.warmup",
    "optimizer.ema",
    "policy.sample_batch",
    "policy.kl_coef",
    "policy.extra_scenes",
    "logging.checkpoint_every",
    "logging.evaluate_every",
    "logging.evaluate_clips",
    "logging.sample_clips",
}
_BELOW_ONE = ("objective.dropout", "objective.density.tails", "optimizer.beta1", "optimizer.beta2", "optimizer.ema")
_FREE_TO_CHANGE = (
    "parallel.",
    "logging.",
    "data.workers",
    "data.max_bad_clips",
    "data.micro_batch",  # the order keeps the one that the run began with
    "epochs",
    "steps",
    "optimizer.lr",
    "optimizer.max_grad_norm",
    "optimizer.warmup",
    "policy.batch",
    "policy.sample_batch",
    "reward.judge.prompt_version",  # stored with the answers
)
"""Beginnings of the settings that may change when a run is resumed."""
_ONCE_FIXED = ("data.micro_batch",)
"""Settings of _FREE_TO_CHANGE that runs of earlier versions recorded, when they could not change."""


@dataclass(frozen=True)
class Recipe:
    """One stage of training."""

    RENAMED: ClassVar[Mapping[str, str]] = {"optimiser": "optimizer", "keeping": "logging"}

    name: str = setting("sft", "Name of the recipe, and of its folder in the run.")
    stage: str = setting("sft", "Stage of training.", choices=STAGES)
    after: str = setting("", "Recipe whose weights this one begins with.")
    seed: int = setting(0, "Seed of everything random.")
    trainable: tuple[str, ...] = setting(
        ("bridge.*", "transformer.*"), "Patterns of the names of the parameters to train."
    )
    epochs: float = setting(1.0, "Passes over the mix, when steps is 0.")
    steps: int = setting(0, "Optimizer steps; 0 means as many as the epochs take.")
    mix: tuple[MixConfig, ...] = setting((MixConfig(),), "Datasets of the stage.")
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        """Raise ValueError for settings that cannot work together."""
        if not self.name.replace("-", "").isalnum():
            raise ValueError(f"name {self.name!r} must be a folder's name: letters, digits and hyphens")
        if not self.mix or len({mix.name for mix in self.mix}) < len(self.mix):
            raise ValueError("mix needs at least one dataset, each with a name of its own")
        self._check_ranges()
        for mix in self.mix:
            if not 0 <= mix.weight < math.inf:
                raise ValueError(f"the weight of mix {mix.name!r} must be at least 0, not {mix.weight}")
        if not self.steps and not self.epochs:
            raise ValueError("either steps or epochs must be above 0")
        if self.data.global_batch % self.data.micro_batch:
            raise ValueError(
                f"data.global_batch {self.data.global_batch} is not a multiple of data.micro_batch"
                f" {self.data.micro_batch}"
            )
        if self.is_reinforcement_learning:
            self._check_policy()

    def _check_ranges(self) -> None:
        for name, value in flat(self).items():
            if type(value) not in (int, float):
                continue
            if not (0 if name in _MAY_BE_ZERO else _MIN_POSITIVE) <= value:
                raise ValueError(f"{name} must be {'at least' if name in _MAY_BE_ZERO else 'above'} 0, not {value}")
            if value > _MAX[type(value)]:
                raise ValueError(f"{name} must not be above {_MAX[type(value)]}, and is {value}")
            if name in _BELOW_ONE and value >= 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {value}")

    def _check_policy(self) -> None:
        policy = self.policy
        if self.data.micro_batch != 1:
            raise ValueError(
                f"data.micro_batch must be 1 in the stage {self.stage}, a scene at a time, not {self.data.micro_batch}"
            )
        if policy.group_size < 2:
            raise ValueError("policy.group_size must be at least 2: advantages compare the candidates of a group")
        if policy.best_of % 2 or policy.best_of > policy.group_size:
            raise ValueError(
                f"policy.best_of must be even and at most policy.group_size {policy.group_size}, not {policy.best_of}"
            )
        if policy.group_size % policy.sampled_together or policy.best_of % policy.batch:
            name = "sample_batch" if policy.sample_batch else "batch"
            raise ValueError(
                f"policy.{name} {policy.sampled_together} must divide policy.group_size {policy.group_size}, and"
                f" policy.batch {policy.batch} must divide policy.best_of {policy.best_of}"
            )
        if policy.extra_scenes % self.data.global_batch:
            raise ValueError(
                f"policy.extra_scenes {policy.extra_scenes} is not a multiple of data.global_batch"
                f" {self.data.global_batch}: scenes are drawn in rounds of so many, so that every number of processes"
                " draws the same ones"
            )
        if policy.steps < 2:
            raise ValueError("policy.steps must be at least 2: the last step has no noise, and teaches nothing")
        if policy.fraction > 1:
            raise ValueError(f"policy.fraction must be at most 1, not {policy.fraction}")
        if policy.dynamics == "cps" and policy.eta > 1:
            raise ValueError(f"policy.eta must be at most 1 with the dynamics cps, not {policy.eta}")

    @property
    def is_reinforcement_learning(self) -> bool:
        """True if the stage learns from rewards."""
        return STAGES.get(self.stage) == "grpo"

    @property
    def asks_claude(self) -> bool:
        """True if the reward of the stage calls the paid API."""
        return self.is_reinforcement_learning and REWARDS[self.reward.kind].asks_claude

    def total_steps(self, samples: int) -> int:
        """Return the optimizer steps of the stage with so many samples in its mix."""
        return self.steps or math.ceil(self.epochs * samples / self.data.global_batch)

    def check_ranks(self, world: int) -> None:
        """Raise ValueError if `world` ranks cannot take the steps of the stage.

        Any number can, but in reinforcement learning, where a rank without a scene would have to make, judge and learn
        from a whole group of candidates that counts nothing.
        """
        scenes = self.data.global_batch
        if self.is_reinforcement_learning and scenes % world:
            fits = [ranks for ranks in range(1, scenes + 1) if scenes % ranks == 0]
            raise ValueError(
                f"a global batch of {scenes} scenes cannot be shared evenly by {world} processes; use {_listed(fits)}"
                " processes, or set data.global_batch"
            )

    def identity_settings(self) -> dict[str, Any]:
        """Return dotted name → value of every setting that decides the result. Runs are compared by these.

        Settings that may change when a run is resumed are left out: its length, and settings that a user lowers after a
        divergence, for example.
        """
        free = (*_FREE_TO_CHANGE, *(() if self.is_reinforcement_learning else ("policy.", "reward.")))
        lasting = {name: value for name, value in self.all_settings().items() if not name.startswith(free)}
        return {**lasting, "precision": self.parallel.precision}

    def all_settings(self) -> dict[str, Any]:
        """Return dotted name → value of every setting, in types of JSON and TOML."""
        return {**flat(self), "mix": [asdict(mix) for mix in self.mix], "trainable": list(self.trainable)}


def with_current_names(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that a run of an earlier version recorded, with their present names."""
    renamed = renamed_settings(Recipe)
    return {renamed.get(name, name): value for name, value in recorded.items()}


def without_free_settings(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that decided the result of a run of an earlier version, without those that are free today."""
    return {name: value for name, value in recorded.items() if name not in _ONCE_FIXED}


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" or {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
