"""Reading a stage: also one that moves, and one of a hundred thousand steps."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from nextscene.training.report.stage_data import is_stage, read_stage
from tests.training.report.made import flow_steps, write_metrics


def test_a_stage_has_its_series_its_evaluations_and_its_summary(run: Path) -> None:
    stage = read_stage(run, "sft")
    assert (stage.step, stage.stage, stage.seconds) == (40, "sft", 20.0)
    assert [point.mean for point in stage.series["step", "loss"].points()] == [2 / step for step in range(1, 41)]
    assert (stage.first["step"], stage.last["step"], stage.last["zero_loss"]) == (0, 40, 1.3)
    assert stage.summary and stage.summary.finished
    assert not stage.is_rewarded and read_stage(run, "rl").is_rewarded


def test_costs_and_cut_texts_are_summed(run: Path) -> None:
    assert [point.mean for point in read_stage(run, "rl").series["step", "usd"].points()] == [0.5, 1.0, 1.5, 2.0]
    assert read_stage(run, "rl").usd == 2.0
    assert read_stage(run, "sft").series["step", "texts_cut"].last == 40


@pytest.mark.parametrize(
    "line", ["{", "[]", "null", '{"event": "step"}', '{"event": "step", "step": null}', '{"step": 1, "loss": 1}', "\0"]
)
def test_a_line_that_is_none_of_ours_is_left_out(tmp_path: Path, line: str) -> None:
    (tmp_path / "sft").mkdir()
    good = json.dumps({"event": "step", "step": 1, "loss": 2.0, "name": "text", "flag": True})
    (tmp_path / "sft/metrics.jsonl").write_text(f"{line}\n{good}\n{line}")
    assert {name: found.total for (_, name), found in read_stage(tmp_path, "sft").series.items()} == {"loss": 2.0}


def test_a_summary_that_cannot_be_read_is_not_there(tmp_path: Path) -> None:
    write_metrics(tmp_path / "sft", flow_steps(1))
    (tmp_path / "sft/summary.json").write_text("{")
    assert read_stage(tmp_path, "sft").summary is None
    assert is_stage(tmp_path / "sft") and not is_stage(tmp_path)


def test_memory_does_not_grow_with_the_steps(tmp_path: Path) -> None:
    peaks = []
    for name, count in (("short", 2000), ("long", 40_000)):
        write_metrics(tmp_path / name, flow_steps(count))
        tracemalloc.start()
        assert read_stage(tmp_path, name).step == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
