"""The journal: what is written is there once, whatever killed the run that wrote it, and TensorBoard reads the same."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nextscene.training.metrics.log_file import SIGMA_BUCKETS, read_metrics, sigma_bucket_name
from nextscene.training.metrics.logger import MetricsLogger


def write(folder: Path, after: int, steps: range, scale: float = 1.0) -> None:
    journal = MetricsLogger(folder, after)
    for step in steps:
        journal.log("step", step, {"loss": scale / step, "d": 1e-6})
    journal.close()


def steps(folder: Path) -> list[int]:
    return [line["step"] for line in read_metrics(folder)]


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    journal = MetricsLogger(tmp_path, 0)
    journal.log("step", 1, {"loss": 0.5})
    assert read_metrics(tmp_path) == [{"event": "step", "step": 1, "loss": 0.5}]
    journal.close()


def test_a_resumed_run_drops_only_the_metrics_after_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 8))
    write(tmp_path, 4, range(5, 7), scale=2.0)
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [
        *((step, 1 / step) for step in range(1, 5)),
        *((step, 2 / step) for step in (5, 6)),
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "tensorboard"}


@pytest.mark.parametrize("half", ['{"event": "step", "st', '{"event": "step", "step": 4, "loss": 1', "{"])
def test_a_last_line_that_was_half_written_is_not_there(tmp_path: Path, half: str) -> None:
    write(tmp_path, 0, range(1, 4))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(half)
    assert steps(tmp_path) == [1, 2, 3]
    write(tmp_path, 3, range(4, 5))
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_a_number_that_is_none_is_left_out_and_the_file_stays_json(tmp_path: Path) -> None:
    journal = MetricsLogger(tmp_path, 0)
    journal.log("step", 1, {"loss": math.nan, "gradient_norm": math.inf, "lr": 1.0})
    journal.close()

    def forbidden(word: str) -> float:
        raise AssertionError(word)

    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=forbidden) == {"event": "step", "step": 1, "lr": 1.0}


def test_nothing_stands_where_nothing_was_written(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "nowhere") == []


def test_tensorboard_reads_the_same_numbers_also_after_a_resume(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 8))
    write(tmp_path, 4, range(5, 7), scale=2.0)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(board.Tags()["scalars"]) == ["step/d", "step/loss"]
    read = {event.step: event.value for event in board.Scalars("step/loss")}
    assert read == pytest.approx({line["step"]: line["loss"] for line in read_metrics(tmp_path)}, rel=1e-6)
    assert len(read) == len(board.Scalars("step/loss"))


def test_the_curves_are_a_picture_that_more_is_seen_in_with_each_thing_written(tmp_path: Path) -> None:
    journal = MetricsLogger(tmp_path, 0)
    levels = {sigma_bucket_name(at): float(at) for at in range(SIGMA_BUCKETS)}
    seen = []
    for event, step, numbers in (
        ("step", 0, {}),
        ("step", 1, {"loss": 3.0} | levels),
        ("step", 2, {"loss": 2.0} | levels),
        ("evaluation", 2, {"heldout_loss": 1.0, "zero_loss": 2.0}),
    ):
        journal.log(event, step, numbers)
        journal.save_curves()
        with Image.open(tmp_path / "curves.png") as picture:
            assert picture.format == "PNG"
            seen.append(picture.convert("RGB").tobytes())
    journal.close()
    assert len(set(seen)) == len(seen)


def test_the_noise_levels_meet_without_a_gap() -> None:
    edges = [sigma_bucket_name(at).removeprefix("loss_sigma_").split("_") for at in range(SIGMA_BUCKETS)]
    assert [edges[0][0], edges[-1][1]] == ["0.00", "1.00"]
    assert all(one[1] == other[0] for one, other in pairwise(edges))
