"""The catalog of metrics: it has the names that runs log, and the documentation has the same."""

from __future__ import annotations

import re
from unittest.mock import patch

import pytest

from nextscene.training.job import TrainingJob
from nextscene.training.metrics.catalog import EVALUATION_METRICS, STEP_METRICS
from nextscene.training.metrics.log_file import read_metrics
from tests.support import REPOSITORY
from tests.training.objectives.grpo.toys import RL, odd_clips_have_spread, rl_on_rank
from tests.training.stages import SMALL, Stage, by_ranks, on_rank, replace

CATALOG = {"step": STEP_METRICS.keys(), "evaluation": EVALUATION_METRICS.keys()}


def documented(heading: str) -> set[str]:
    """Return the names in the first column of a table of docs/training.md."""
    text = (REPOSITORY / "docs/training.md").read_text(encoding="utf-8")
    table = text.partition(f"| {heading} | |\n")[2].partition("\n\n")[0]
    return {name for line in table.splitlines() for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


@pytest.mark.parametrize(("event", "heading"), [("step", "of a step"), ("evaluation", "of an evaluation")])
def test_the_documentation_explains_each_metric_and_no_other(event: str, heading: str) -> None:
    assert documented(heading) == CATALOG[event]


def logged(job: TrainingJob) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"step": set(), "evaluation": set()}
    for line in read_metrics(job.folder):
        found[line["event"]] |= line.keys() - {"event", "step"}
    return found


@pytest.mark.slow
def test_runs_log_what_is_in_the_catalog_and_all_of_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two kinds of runs, the one with a GPU whose peak is known."""
    stage = Stage.made(tmp_path_factory.mktemp("stage"), SMALL)
    flow = stage.job("flow", replace(SMALL, steps=6))
    policy = replace(RL.policy, extra_scenes=RL.data.global_batch)
    rewarded = stage.job("rewarded", replace(RL, policy=policy))
    with patch("nextscene.training.metrics.throughput.peak_flops", lambda *_: 1e12):
        by_ranks(1, on_rank, flow)
    by_ranks(1, rl_on_rank, rewarded, odd_clips_have_spread)
    for event, names in CATALOG.items():
        assert logged(flow)[event] | logged(rewarded)[event] == names, event
