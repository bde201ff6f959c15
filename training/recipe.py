"""What a stage of training is: which parameters, which data, which objective and optimiser, for how long.

The recipes beside this module, in `recipes/`, are the paper's stages; `recipes/tiny` are those of the toy model.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from nextscene.common.config_loader import flat
from nextscene.judge.config import ClaudeConfig

PromptForm = Literal["nsp", "t2v"]
Stage = Literal["connector", "generator", "sft", "rl"]
STAGES: tuple[str, ...] = get_args(Stage)


@dataclass(frozen=True)
class MixConfig:
    """One of the datasets of a stage, which the command line gives a place by its `name`.

    `weight` is its share of the micro-batches beside those of the others; 0 stands for the number of its samples, so
    that an epoch shows each of all once. `text` is what the model is given: the caption, or the scene before.
    """

    name: str = "data"
    weight: float = 0.0
    text: Literal["caption", "scene"] = "scene"
    prompt: PromptForm = "nsp"


@dataclass(frozen=True)
class DataConfig:
    """A micro-batch goes through the model of one GPU at once; a global batch is what one step learns from.

    In the stage `rl` both are of scenes, and a micro-batch is one.

    Clips are cut to at most `max_frames` frames and brought to `width` × `height`; images keep their size.
    """

    micro_batch: int = 8
    global_batch: int = 256
    max_frames: int = 65
    width: int = 832
    height: int = 480
    workers: int = 4
    window: int = 8
    skip_at_most: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """`hidden` 0 is Qwen's own width. `max_tokens` bounds text and queries together (paper, section 13)."""

    queries: int = 256
    hidden: int = 0
    max_tokens: int = 1024


@dataclass(frozen=True)
class TimestepDensity:
    """What σ is drawn from in training (paper: unspecified).

    `shifted` is sigmoid(N(mu, 1)), as LTX-Video's own trainer draws it; `uniform` is uniform. `tails` is the share of
    draws that are uniform in any case, so that the ends of the range are not forgotten.
    """

    kind: Literal["shifted", "uniform"] = "shifted"
    tails: float = 0.0


@dataclass(frozen=True)
class ObjectiveConfig:
    """`dropout` is the share of samples whose text is left out, for guidance (paper, section 13: 10 %)."""

    dropout: float = 0.1
    density: TimestepDensity = field(default_factory=TimestepDensity)


@dataclass(frozen=True)
class OptimizerConfig:
    """`lr` is Prodigy's factor, or AdamW's learning rate, after `warmup` steps. Norms and biases do not decay."""

    kind: Literal["prodigy", "adamw"] = "prodigy"
    lr: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.01
    warmup: int = 0
    clip: float = 1.0
    ema: float = 0.9999


@dataclass(frozen=True)
class ParallelConfig:
    """How the model lies on the GPUs. None of it changes what is learnt, beyond rounding.

    `replicas` copies of the sharded model share the work (hybrid sharding); `gather_language` keeps Qwen whole on each
    GPU.
    """

    precision: Literal["bf16", "fp32"] = "bf16"
    replicas: int = 1
    gather_language: bool = True
    checkpointing: Literal["none", "selective", "full"] = "selective"
    compile: bool = True


@dataclass(frozen=True)
class PolicyConfig:
    """How the stage `rl` makes videos of a scene and learns from them (paper, section 13, and its formula for the SDE).

    Of `candidates` of one scene, half of `best_of` are those with the highest rewards and half those with the lowest.
    `batch` of them go through the model at once, in sampling and in learning alike. `dynamics` and `eta` say how noise
    is mixed in on the way (`training.flow.sde`); a `fraction` of the steps that have noise is learnt from, with a ratio
    of probabilities bounded to 1 ± `clip`. `kl` weighs the distance from the weights that the stage began with.
    `normalise` divides advantages by the deviation of the group's rewards, of all the step's, or not at all.
    """

    candidates: int = 24
    best_of: int = 8
    batch: int = 1
    steps: int = 20
    guidance: float = 3.0
    dynamics: Literal["dance", "flow", "cps"] = "dance"
    eta: float = 0.3
    fraction: float = 0.6
    clip: float = 1e-4
    kl: float = 0.0
    normalise: Literal["group", "step", "none"] = "group"
    detach_unconditional: bool = False


@dataclass(frozen=True)
class RewardConfig:
    """What candidates are judged by.

    `causal_consistency` is the paper's: the video is captioned, by `captioner`, and caption and scene are put to
    `judge`. `retrieval` is ours, and asks nobody: whether the video's latents lie nearer to those of the clip that
    followed the scene in truth than to the median of `others` clips.
    """

    kind: Literal["causal_consistency", "retrieval"] = "causal_consistency"
    captioner: Literal["claude", "qwen"] = "claude"
    others: int = 32
    judge: ClaudeConfig = field(default_factory=ClaudeConfig)


@dataclass(frozen=True)
class LoggingConfig:
    """When to write what. A step count of 0 means: only at the end."""

    checkpoint_every: int = 500
    keep_last: int = 3
    evaluate_every: int = 500
    evaluate_clips: int = 64
    sample_clips: int = 4
    sample_steps: int = 50
    guidance: float = 3.0


@dataclass(frozen=True)
class Recipe:
    """A stage. `trainable` are patterns over the model's parameter names; `after` is the recipe that it goes on from.

    It takes `steps` steps, or as many as `epochs` of the mix take where that is 0.
    """

    name: str = "sft"
    stage: Stage = "sft"
    after: str = ""
    seed: int = 0
    trainable: tuple[str, ...] = ("bridge.*", "transformer.*")
    epochs: float = 1.0
    steps: int = 0
    mix: tuple[MixConfig, ...] = (MixConfig(),)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimiser: OptimizerConfig = field(default_factory=OptimizerConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    keeping: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        if not self.name.replace("-", "").isalnum():
            raise ValueError(f"name {self.name!r} is to be a folder's: letters, digits and hyphens")
        if not self.mix or len({mix.name for mix in self.mix}) < len(self.mix):
            raise ValueError("mix needs at least one dataset, each with a name of its own")
        for name, value in flat(self).items():
            if type(value) not in (int, float):
                continue
            if not (0 if name in _MAY_BE_ZERO else _LEAST) <= value:
                raise ValueError(f"{name} must be {'at least' if name in _MAY_BE_ZERO else 'above'} 0, not {value}")
            if value > _MOST[type(value)]:
                raise ValueError(f"{name} must not be above {_MOST[type(value)]}, and is {value}")
        for mix in self.mix:
            if not 0 <= mix.weight < math.inf:
                raise ValueError(f"the weight of mix {mix.name!r} must be at least 0, not {mix.weight}")
        if not self.steps and not self.epochs:
            raise ValueError("either steps or epochs must be above 0")
        if self.data.global_batch % self.data.micro_batch:
            raise ValueError(
                f"data.global_batch {self.data.global_batch} is no multiple of data.micro_batch {self.data.micro_batch}"
            )
        for name in (
            "objective.dropout",
            "objective.density.tails",
            "optimiser.beta1",
            "optimiser.beta2",
            "optimiser.ema",
        ):
            if not 0 <= flat(self)[name] < 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {flat(self)[name]}")
        if self.stage == "rl":
            self._check_policy()

    def _check_policy(self) -> None:
        policy = self.policy
        if self.data.micro_batch != 1:
            raise ValueError(
                f"data.micro_batch must be 1 in the stage rl, a scene at a time, not {self.data.micro_batch}"
            )
        if policy.candidates < 2:
            raise ValueError(
                "policy.candidates: of a single one nothing can be learnt, there is none to compare it with"
            )
        if policy.best_of % 2 or policy.best_of > policy.candidates:
            raise ValueError(
                f"policy.best_of must be even and at most policy.candidates {policy.candidates}, not {policy.best_of}"
            )
        if policy.candidates % policy.batch or policy.best_of % policy.batch:
            raise ValueError(
                f"policy.batch {policy.batch} must divide policy.candidates {policy.candidates} and policy.best_of"
                f" {policy.best_of}"
            )
        if policy.steps < 2:
            raise ValueError("policy.steps must be at least 2: the last one is without noise, and teaches nothing")
        if policy.fraction > 1:
            raise ValueError(f"policy.fraction must be at most 1, not {policy.fraction}")
        if policy.dynamics == "cps" and policy.eta > 1:
            raise ValueError(f"policy.eta must be at most 1 with the dynamics cps, not {policy.eta}")

    @property
    def asks_claude(self) -> bool:
        return self.stage == "rl" and self.reward.kind == "causal_consistency"

    def total_steps(self, samples: int) -> int:
        return self.steps or math.ceil(self.epochs * samples / self.data.global_batch)

    def gradient_accumulation_steps(self, world: int) -> int:
        """Micro-batches of each rank in a step. Raises ValueError where the global batch cannot be dealt out evenly."""
        micro_batches = self.data.global_batch // self.data.micro_batch
        if micro_batches % world:
            fits = [ranks for ranks in range(1, micro_batches + 1) if micro_batches % ranks == 0]
            raise ValueError(
                f"a global batch of {self.data.global_batch} is {micro_batches} micro-batches of"
                f" {self.data.micro_batch}, which {world} processes cannot share evenly; use {_listed(fits)} processes,"
                " or set data.global_batch and data.micro_batch"
            )
        return micro_batches // world

    def identity_settings(self) -> dict[str, Any]:
        """Dotted name → value of all that decides what is learnt, for comparing a run with the one it goes on from.

        How long it goes on, and what one lowers when it diverges, may change on the way.
        """
        settings = flat(self)
        idle = (
            "parallel.",
            "keeping.",
            "data.workers",
            "data.skip_at_most",
            "epochs",
            "steps",
            "mix",
            "trainable",
            "optimiser.lr",
            "optimiser.clip",
            "optimiser.warmup",
            "policy.batch",
            "reward.judge.prompt_version",  # kept with the answers
            *(() if self.stage == "rl" else ("policy.", "reward.")),
        )
        lasting = {name: value for name, value in settings.items() if not name.startswith(idle)}
        mixes = [asdict(mix) for mix in self.mix]
        return {**lasting, "mix": mixes, "trainable": list(self.trainable), "precision": self.parallel.precision}


_LEAST = 1e-300
_MOST = {int: 2**63 - 1, float: 1e30}
_MAY_BE_ZERO = {
    "seed",
    "epochs",
    "steps",
    "data.workers",
    "data.skip_at_most",
    "model.hidden",
    "objective.dropout",
    "objective.density.tails",
    "optimiser.lr",
    "optimiser.beta1",
    "optimiser.beta2",
    "optimiser.weight_decay",
    "optimiser.warmup",
    "optimiser.ema",
    "policy.kl",
    "keeping.checkpoint_every",
    "keeping.evaluate_every",
    "keeping.evaluate_clips",
    "keeping.sample_clips",
}


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" or {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
