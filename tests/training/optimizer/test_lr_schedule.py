"""The learning-rate schedule: it rises in equal steps to the rate of the recipe, and stays there."""

from __future__ import annotations

import pytest
import torch

from nextscene.training.config import OptimizerConfig
from nextscene.training.optimizer.lr_schedule import learning_rate, set_learning_rate


def test_the_rate_rises_linearly_over_the_warm_up() -> None:
    config = OptimizerConfig(lr=2.0, warmup=4)
    assert [learning_rate(config, step) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("warmup", [0, 1])
def test_without_warm_up_the_first_step_has_the_whole_rate(warmup: int) -> None:
    assert learning_rate(OptimizerConfig(lr=0.3, warmup=warmup), 0) == 0.3


def test_all_groups_get_the_rate() -> None:
    groups = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(2)], "lr": 9.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
