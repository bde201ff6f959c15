"""Statistics of a step of GRPO, summed on the device, so that the CPU need not wait for it after each term.

Tested in tests/training/objectives/grpo/test_grpo.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nextscene.training.distributed.process_group import World


class StepStatistics:
    """The loss of a step on this rank, the change of the log-probabilities since sampling, and the KL divergences."""

    def __init__(self, clip_range: float, device: torch.device) -> None:
        self._clip_range = clip_range
        self._loss, self._beyond, self._divergence, self._largest = torch.zeros(
            4, 1, device=device, dtype=torch.float64
        )
        self._terms = self._measured = 0

    def add(self, loss: Tensor, change: Tensor) -> None:
        """Add a term: its part of the loss, and the change [B] of the log-probabilities since sampling."""
        away = torch.expm1(change).abs().double()
        self._loss += loss
        self._beyond += (away > self._clip_range).sum()
        self._largest.copy_(torch.maximum(self._largest, away.max()))
        self._terms += len(change)

    def add_divergence(self, divergence: Tensor) -> None:
        """Add KL divergences from the reference model, [B]."""
        self._divergence += divergence.sum()
        self._measured += len(divergence)

    def reduce(self, world: World) -> tuple[float, dict[str, float]]:
        """Return the loss of all ranks and the metrics. Only here does the CPU wait for the device.

        `ratio_off` is the largest difference from 1 of the ratio of a probability now and in sampling, `clip_share` the
        share of the ratios that differ by more than the clip range.
        """
        counts = torch.tensor([self._terms, self._measured], dtype=torch.float64, device=self._loss.device)
        sums = torch.cat([self._loss, self._beyond, self._divergence, counts])
        loss, beyond, divergence, terms, measured = world.all_reduce_sum(sums).tolist()
        return loss, {
            "ratio_off": world.all_reduce_max(float(self._largest)),
            "clip_share": beyond / terms,
            "kl_to_start": divergence / measured if measured else math.nan,
        }
