"""The tables of a recipe: a frozen dataclass for each, every setting with its default and its explanation.

Tested in tests/training/test_recipe.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Literal

from nextscene.common.config_loader import setting
from nextscene.judge.config import ClaudeConfig
from nextscene.training.rewards import REWARDS

PromptForm = Literal["nsp", "t2v"]
"""The prompt that a text is put into: that of next-scene prediction, or of text to video."""


@dataclass(frozen=True)
class MixConfig:
    """One of the datasets of a stage. The command line maps its `name` to its location."""

    name: str = setting("data", "Name of the dataset, by which its location is given.")
    weight: float = setting(
        0.0,
        "Share of the micro-batches, relative to the other datasets; 0 means the number of its samples, so that an"
        " epoch shows each sample of all datasets once.",
    )
    text: Literal["caption", "scene"] = setting("scene", "Text that the model is given.")
    prompt: Literal["nsp", "t2v"] = setting("nsp", "Prompt that the text is put into.")


@dataclass(frozen=True)
class DataConfig:
    """Batches and the shape of clips. In reinforcement learning samples are scenes, and a micro-batch is one scene."""

    RENAMED: ClassVar[Mapping[str, str]] = {"skip_at_most": "max_bad_clips"}

    micro_batch: int = setting(8, "Most samples of each GPU in one forward pass.")
    global_batch: int = setting(256, "Samples of all GPUs in one optimizer step.")
    max_frames: int = setting(65, "Frames that a clip is cut to.")
    width: int = setting(832, "Width that clips are brought to, in pixels; images keep their size.")
    height: int = setting(480, "Height that clips are brought to, in pixels; images keep their size.")
    workers: int = setting(4, "Processes of each GPU that decode clips.")
    window: int = setting(8, "Shards that are shuffled together.")
    max_bad_clips: int = setting(0, "Damaged clips that may be skipped before the run stops.")


@dataclass(frozen=True)
class ModelConfig:
    """The queries, the connector and the text length (paper, section 13)."""

    queries: int = setting(256, "Learnable queries behind the text.")
    hidden: int = setting(0, "Width of the connector's hidden layer; 0 means the width of Qwen.")
    max_tokens: int = setting(1024, "Longest text in tokens, queries included.")


@dataclass(frozen=True)
class TimestepDensity:
    """Distribution of the noise level σ in training (paper: unspecified).

    `shifted` is sigmoid(N(mu, 1)), as in the trainer of LTX-Video; `uniform` is uniform in [0, 1).
    """

    kind: Literal["shifted", "uniform"] = setting("shifted", "Distribution of the noise level in training.")
    tails: float = setting(0.0, "Share of noise levels drawn uniformly instead, so that the ends of the range occur.")


@dataclass(frozen=True)
class ObjectiveConfig:
    """The flow-matching objective (paper, section 13)."""

    dropout: float = setting(0.1, "Share of samples whose text is left out, for classifier-free guidance.")
    density: TimestepDensity = field(default_factory=TimestepDensity)


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer, its learning-rate schedule, gradient clipping, and the moving average of the weights (EMA)."""

    RENAMED: ClassVar[Mapping[str, str]] = {"clip": "max_grad_norm"}

    kind: Literal["prodigy", "adamw"] = setting("prodigy", "Optimizer.")
    lr: float = setting(1.0, "Learning rate after the warm-up; with prodigy a factor of its own estimate.")
    beta1: float = setting(0.9, "Decay of the average of the gradients.")
    beta2: float = setting(0.99, "Decay of the average of the squared gradients.")
    weight_decay: float = setting(0.01, "Decoupled weight decay; norms and biases have none.")
    warmup: int = setting(0, "Steps over which the learning rate rises linearly.")
    max_grad_norm: float = setting(1.0, "Norm that the gradient of all parameters together is clipped to.")
    ema: float = setting(0.9999, "Decay of the moving average of the weights; 0 keeps no average.")


@dataclass(frozen=True)
class ParallelConfig:
    """Placement of the model on the GPUs. It changes the result by rounding only."""

    precision: Literal["bf16", "fp32"] = setting("bf16", "Mixed precision with bfloat16, or float32 throughout.")
    replicas: int = setting(1, "Copies of the sharded model that share the work (hybrid sharding).")
    gather_language: bool = setting(True, "Keep all of Qwen on each GPU instead of sharding it.")
    checkpointing: Literal["none", "selective", "full"] = setting(
        "selective",
        "Activation checkpointing: recompute nothing, all but matrix products and attention, or everything.",
    )
    compile: bool = setting(True, "Compile the blocks of the transformer.")
    connector: Literal["fp32", "bf16"] = setting("fp32", "Precision of the connector's matrix products.")
    timeout_seconds: int = setting(1800, "Seconds that processes wait for each other before the run ends.")

    @property
    def timeout(self) -> timedelta:
        """The time that processes wait for each other."""
        return timedelta(seconds=self.timeout_seconds)


@dataclass(frozen=True)
class PolicyConfig:
    """Group-relative policy optimization in the stage `rl` (paper, section 13, and its formula of the SDE)."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "candidates": "group_size",
        "clip": "clip_range",
        "kl": "kl_coef",
        "normalise": "normalize",
    }

    group_size: int = setting(24, "Candidate videos of each scene.")
    best_of: int = setting(8, "Candidates to learn from: one half the highest rewards, one half the lowest.")
    batch: int = setting(1, "Candidates in one forward pass, when sampling and when learning from them.")
    sample_batch: int = setting(0, "Candidates in one forward pass when sampling; 0 means policy.batch.")
    steps: int = setting(20, "Sampling steps of a candidate.")
    guidance: float = setting(3.0, "Scale of classifier-free guidance in sampling and in learning.")
    dynamics: Literal["dance", "flow", "cps"] = setting(
        "dance", "Noise that sampling adds: that of DanceGRPO, of Flow-GRPO, or coefficients-preserving sampling."
    )
    eta: float = setting(0.3, "Strength of that noise.")
    noise: Literal["cpu", "device"] = setting(
        "cpu", "Where that noise is drawn: on the CPU, or on the device of the model, which is faster on a GPU."
    )
    fraction: float = setting(0.6, "Share of the noisy sampling steps to learn from.")
    clip_range: float = setting(
        1e-4,
        "Deviation of a probability ratio from 1 above which clip_share counts it. Nothing is clipped: each sample is"
        " learned from once, so its ratio is 1.",
    )
    kl_coef: float = setting(0.0, "Weight of the KL divergence from the reference model.")
    normalize: Literal["group", "step", "none"] = setting(
        "group", "Divide advantages by the deviation of the group's rewards, of the step's rewards, or by nothing."
    )
    detach_unconditional: bool = setting(False, "Send no gradient through the unconditional half of guidance.")
    extra_scenes: int = setting(
        0,
        "Scenes that a step may draw beyond data.global_batch, a multiple of that, until as many groups have unequal"
        " rewards; 0 draws none.",
    )

    @property
    def sampled_together(self) -> int:
        """The number of candidates in one forward pass of sampling."""
        return self.sample_batch or self.batch


@dataclass(frozen=True)
class RewardConfig:
    """The reward of the stage `rl`.

    `causal_consistency` is the paper's: the video is captioned, and the judge compares the caption with the scene.
    `retrieval` is our own and calls no API: a video passes if the distance of its latents to those of the clip that
    actually followed the scene is below the median distance to `others` clips.
    `shapes` is that of the sample world of moving shapes: it reads the pixels of the video, and calls no API.
    """

    kind: str = setting("causal_consistency", "Reward of the candidates.", choices=REWARDS)
    captioner: Literal["claude", "qwen"] = setting("claude", "Model that captions the videos for causal_consistency.")
    verdicts: int = setting(
        1, "Verdicts on each candidate in causal_consistency, each paid for; the reward is the share of Pass."
    )
    others: int = setting(32, "Clips that retrieval compares with.")
    judge: ClaudeConfig = field(default_factory=ClaudeConfig)


@dataclass(frozen=True)
class LoggingConfig:
    """Checkpoints, validation, samples, logs and the export. An interval of 0 means only at the end."""

    checkpoint_every: int = setting(500, "Steps between checkpoints; 0 means only at the end.")
    keep_last: int = setting(3, "Checkpoints to keep.")
    evaluate_every: int = setting(500, "Steps between validations; 0 means only at the end.")
    evaluate_clips: int = setting(64, "Held-out clips of the validation loss; 0 turns validation off.")
    sample_clips: int = setting(4, "Held-out clips to make a sample video for at each validation.")
    sample_steps: int = setting(50, "Sampling steps of those videos.")
    guidance: float = setting(3.0, "Scale of classifier-free guidance of those videos.")
    wandb: str = setting("", "Project at Weights & Biases that metrics are logged to as well.")
    export_precision: Literal["fp32", "bf16"] = setting("fp32", "Precision of the exported transformer's weights.")
