"""Reading an evaluation: verdicts by scene, also before it has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextscene.evaluation.report.read import read_evaluation
from tests.evaluation.report.made import SCENES, VERDICTS, write_model


def test_each_model_has_its_videos_with_their_verdicts(evaluated: Path) -> None:
    data = read_evaluation(evaluated)
    assert [model.name for model in data.models] == ["sft", "rl"]
    assert data.scenes() == [*SCENES]
    for model in data.models:
        assert tuple(model.videos[scene][0].verdict for scene in SCENES) == VERDICTS[model.name]
        assert model.is_judged and all(model.videos[scene][0].file.is_file() for scene in SCENES)


def test_models_differ_by_their_mean_verdicts_and_not_without_one(evaluated: Path) -> None:
    data = read_evaluation(evaluated)
    assert [data.difference(scene) for scene in SCENES] == [0.0, 1.0, 1.0, None]


def test_before_the_verdicts_there_are_the_videos(tmp_path: Path) -> None:
    write_model(tmp_path / "sft", judged=False)
    (tmp_path / "calls").mkdir()
    (tmp_path / "summary.json").write_text("{")
    data = read_evaluation(tmp_path)
    (model,) = data.models
    assert (data.summary, model.is_judged, [*model.videos]) == ({}, False, [*SCENES])


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"file": "a.mp4"}', '{"file": "../a.mp4", "scene": "x"}', '{"scene": "x"}']
)
def test_a_record_that_is_no_video_is_left_out(tmp_path: Path, line: str) -> None:
    write_model(tmp_path / "sft")
    with (tmp_path / "sft/items.jsonl").open("a") as file:
        file.write(f"\n{line}\n")
    assert read_evaluation(tmp_path).scenes() == [*SCENES]
