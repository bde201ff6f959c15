"""The learning-rate schedule: linear warm-up, then constant."""

from __future__ import annotations

import torch

from nextscene.training.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """Return the learning rate of the step after `step` others: lr × min(1, (step + 1) / warmup)."""
    return config.lr * min(1.0, (step + 1) / max(1, config.warmup))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
