"""Gradient clipping by the norm of all gradients together.

Tested in tests/training/test_trainer.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def clip_gradients(parameters: list[Tensor], max_norm: float) -> float:
    """Scale all gradients so that their norm is at most `max_norm`, and return the norm that they had."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
