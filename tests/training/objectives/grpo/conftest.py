"""What the tests of the stage `rl` train on."""

from __future__ import annotations

import pytest

from tests.training.objectives.grpo.toys import RL
from tests.training.stages import Stage


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.made(tmp_path_factory.mktemp("rl"), RL)
