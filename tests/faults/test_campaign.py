"""A sample of the campaign of kills; `python -m tests.faults.campaign` runs all of it."""

from __future__ import annotations

import pytest

from tests.faults.campaign import Plan, campaign

pytestmark = pytest.mark.slow

SAMPLE = [
    Plan(1, "one by one", "disk", "calm", 0.05, ((5, 0.05), (20, 0.1))),
    Plan(2, "one by one", "s3", "torn", 0.05, ((15, 0.1),)),
    Plan(3, "batches", "disk", "calm", 0.05, ((10, 0.3),)),
    Plan(4, "one by one", "disk", "torn", 0.05, ((10, 0.05), (30, 0.05), (4, 0.0)), retries=True),
]


def test_killed_while_asking_data_and_costs_equal_those_of_a_calm_run() -> None:
    with campaign() as trials:
        outcomes = [trials.trial(plan) for plan in SAMPLE]
    assert [outcome.wrong for outcome in outcomes] == [[], [], [], []]
    assert sum(outcome.kills for outcome in outcomes) >= 4
