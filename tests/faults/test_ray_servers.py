"""A sample of `python -m tests.faults.ray_servers`: an agent of Ray is killed, which ends the raylet too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.ray_servers import Trial, attempt, prepared


@pytest.mark.slow
def test_a_death_of_ray_is_reported_and_the_next_run_makes_the_same_dataset(tmp_path: Path) -> None:
    result = attempt(Trial(0, "one by one", "runtime env agent", "SIGKILL", after_answers=4), *prepared(tmp_path))
    assert result.struck and not result.wrong
    assert result.first and result.first.code == 3
    assert all(words in result.first.error for words in ("Ray's ", "runtime env agent (process ", " died"))
