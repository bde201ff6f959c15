"""`evaluate` from Python: it prints nothing, and what it returns is what `summary.json` says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from zlib import crc32

import pytest
import torch

from nextscene.common.errors import UsageError
from nextscene.evaluation import evaluate
from nextscene.judge.call_progress import CallProgress
from nextscene.judge.config import ClaudeConfig
from nextscene.training.generation.base import Sampling
from nextscene.training.generation.open_generator import GeneratorSpec
from tests.fakes.claude_api import AnswerRules, ClaudeApi
from tests.judge import api_support

SCENES = ["A glass wobbles.", "Dark clouds gather.", "A dog barks."]
SAMPLING = Sampling(frames=5, width=32, height=32, steps=2)


@dataclass
class Plain:
    """A generator whose videos are noise, by name and seed."""

    name: str
    sampling: Sampling = SAMPLING

    def videos(self, texts: list[str], seeds: list[int]) -> torch.Tensor:
        random = torch.Generator()
        noise = []
        for seed in seeds:
            random.manual_seed(seed ^ crc32(self.name.encode()))
            noise.append(torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8, generator=random))
        return torch.stack(noise)


def plain(name: str) -> GeneratorSpec:
    return GeneratorSpec(name, SAMPLING, lambda _device: Plain(name))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    api_support.hurry(monkeypatch)
    with ClaudeApi(rules=AnswerRules(pass_rate=0.5)) as api:
        api_support.reach(monkeypatch, api)
        yield api


def test_an_evaluation_of_ten_lines(api: ClaudeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {"one": plain("model-1"), "two": plain("model-2")}
    result = evaluate(models, SCENES, tmp_path / "eval", samples=2, judge=ClaudeConfig(frames=2))
    assert [model.name for model in result.models] == ["one", "two"]
    for model in result.models:
        assert model.score and (model.score.judged, model.score.missing) == (6, 0)
        assert model.rewards.keys() == set(SCENES)
    (between,) = result.differences
    assert (between.later, between.earlier, between.difference.scenes) == ("two", "one", 3)
    assert capsys.readouterr() == ("", "")

    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert {name: summary[name] for name in ("models", "differences")} == result.summary()
    assert Decimal(summary["spent_usd"]) == result.calls.spent == sum(model.usd for model in result.models)

    asked = len(api.exchanges)
    again = evaluate(models, SCENES, tmp_path / "eval", samples=2, judge=ClaudeConfig(frames=2))
    assert (again.models, len(api.exchanges)) == (result.models, asked)


def test_its_progress_is_reported_part_by_part(api: ClaudeApi, tmp_path: Path) -> None:
    told: list[object] = []

    class Told:
        def __init__(self, part: str) -> None:
            told.append(part)

        def begin(self, planned: int, decided: int) -> None:
            told.append((decided, planned))

        def advance(self, clips: int) -> None:
            told.append(clips)

        def tick(self, asking: CallProgress | None = None) -> None: ...

        def end(self) -> None:
            told.append("end")

    evaluate({"a": plain("a")}, SCENES[:2], tmp_path / "eval", judge=ClaudeConfig(frames=2), progress=Told)
    assert [one for one in told if one != 0] == ["generating a", (0, 2), 1, 1, "end", "judging", (0, 2), 1, 1, "end"]


@pytest.mark.parametrize("name", ["calls", "a b", "", "summary.json"])
def test_a_name_that_no_model_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="the model"):
        evaluate({name: plain("a")}, SCENES, tmp_path / "eval")
    assert not (tmp_path / "eval").exists()
