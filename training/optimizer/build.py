"""Construction of the optimizer that a recipe names, and its state by name for checkpoints.

Tested in tests/training/test_trainer.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nextscene.training.config import OptimizerConfig
from nextscene.training.optimizer.prodigy import Prodigy


def build_optimizer(named: Mapping[str, nn.Parameter], chosen: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer of the named parameters. Only weights of matrix products have weight decay.

    All of its state is created now, so that a checkpoint can be loaded into it.
    """
    decaying = [parameter for name, parameter in named.items() if _decays(name, parameter)]
    others = [parameter for name, parameter in named.items() if not _decays(name, parameter)]
    groups = [
        {"params": parameters, "weight_decay": decay}
        for parameters, decay in ((decaying, chosen.weight_decay), (others, 0.0))
        if parameters
    ]
    betas = (chosen.beta1, chosen.beta2)
    if chosen.kind == "prodigy":
        # Its authors recommend bias correction and the safeguard for diffusion models.
        return Prodigy(groups, lr=chosen.lr, betas=betas, use_bias_correction=True, safeguard_warmup=True)
    adamw = torch.optim.AdamW(groups, lr=chosen.lr, betas=betas, fused=True)
    for parameter in named.values():
        adamw.state[parameter] = {
            "step": torch.tensor(0.0, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return adamw


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return name.endswith(".weight") and parameter.ndim > 1


def state_tensors(chosen: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return all state that decides the next step, by name, to be saved or to be filled in place."""
    found = {
        f"{name}.{key}": value for name, parameter in named.items() for key, value in chosen.state[parameter].items()
    }
    return found | (chosen.shared if isinstance(chosen, Prodigy) else {})
