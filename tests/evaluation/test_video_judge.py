"""The judges of videos: an evaluation by the verifier of the world of shapes needs no key and spends nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import torch

from nextscene.common.errors import UsageError
from nextscene.evaluation import evaluate
from nextscene.evaluation.video_judge import VIDEO_JUDGES
from nextscene.pipelines.evaluate import main
from nextscene.samples.shapes.drawing import draw_clip
from nextscene.samples.shapes.world import what_follows
from nextscene.training.generation.base import Sampling
from nextscene.training.generation.open_generator import GeneratorSpec

SAMPLING = Sampling(frames=9, width=64, height=64, steps=2)
SCENES = [
    "A red ball rests in the top left corner. Someone pushes it along the wall.",
    "There is a blue plank at the lower right. Someone kicks it with full force.",
]


@dataclass
class Drawer:
    """A generator that draws what follows, or, if it is `wrong`, the same in another color."""

    name: str
    wrong: bool = False
    sampling: Sampling = SAMPLING

    def videos(self, texts: list[str], seeds: list[int]) -> torch.Tensor:
        follows = [what_follows(text) for text in texts]
        shown = [one._replace(color="green") if self.wrong else one for one in follows]
        return torch.stack(
            [torch.from_numpy(draw_clip(one, seed, 9, 64, 64)) for one, seed in zip(shown, seeds, strict=True)]
        )


def spec(drawer: Drawer) -> GeneratorSpec:
    return GeneratorSpec(drawer.name, SAMPLING, lambda _device: drawer)


def test_the_verifier_judges_through_the_interface_of_claude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    models = {"right": spec(Drawer("right")), "wrong": spec(Drawer("wrong", wrong=True))}
    result = evaluate(models, SCENES, tmp_path / "eval", judge_with="shapes")
    right, wrong = result.models
    assert right.score and (right.score.mean, right.judged) == (1.0, 2)
    assert wrong.score and wrong.score.mean == 0.0
    assert (result.calls.answers, result.calls.spent) == (4, 0)
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert summary["judge"] == {"model": "shapes"} and summary["spent_usd"] == "0"
    item = json.loads((tmp_path / "eval" / "wrong" / "items.jsonl").read_text().splitlines()[0])
    assert (item["verdict"], item["reason"]) == ("Fail", "color green, not red")
    assert item["caption"] == "color green, shape ball, place top left, motion across"


def test_the_command_offers_all_judges_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    (choice,) = (one.type for one in main.params if one.name == "judge_with")
    assert isinstance(choice, click.Choice) and list(choice.choices) == list(VIDEO_JUDGES)
    with pytest.raises(UsageError, match="`judge_with` 'pixels' is not known; the judges of videos are claude, shapes"):
        evaluate({}, SCENES, tmp_path / "eval", judge_with="pixels")
    assert not (tmp_path / "eval").exists()


def test_a_scene_of_another_world_has_no_verdict(tmp_path: Path) -> None:
    @dataclass
    class Blank(Drawer):
        def videos(self, texts: list[str], seeds: list[int]) -> torch.Tensor:
            return torch.zeros(len(texts), 9, 64, 64, 3, dtype=torch.uint8)

    result = evaluate({"blank": spec(Blank("blank"))}, ["A bunny wakes."], tmp_path / "eval", judge_with="shapes")
    assert (result.models[0].judged, result.models[0].missing) == (0, 1)
