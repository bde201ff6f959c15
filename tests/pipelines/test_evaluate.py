"""evaluate.py: scores that are what the judge said, nothing made or asked twice, and each way to end in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import av
import pytest
from click.testing import CliRunner

from nextscene.pipelines.evaluate import main
from nextscene.prompts import load
from nextscene.shards.format.layout import ShardName
from nextscene.training.model.pretrained import PretrainedModels
from tests.fakes.claude_api import AnswerRules, ClaudeApi, FaultSchedule
from tests.judge import api_support
from tests.judge.api_support import account, interactive_cost
from tests.shards.samples import sample, sample_of, seal_dataset
from tests.training.generators import make_export, save_text_encoder
from tests.training.stages import make_originals

pytestmark = pytest.mark.slow

SIZE = ["--frames", "5", "--width", "32", "--height", "32", "--steps", "2"]
JUDGE = ["--judge.frames", "2"]
SCENES = ["A glass wobbles.", "Dark clouds gather.", "Rain – and wind.", "She opens the door.", "A dog barks."]
RULES = AnswerRules(pass_rate=0.5, marked={"GARBLED": 0.15, "REFUSE-CAPTION": 0.15})


@dataclass(frozen=True)
class Given:
    """Two models of the same originals, a file of scenes, a dataset, and an --out of its own."""

    originals: PretrainedModels
    runs: dict[str, Path]
    data: Path
    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def models(self) -> list[str]:
        return [flag for name, run in self.runs.items() for flag in ("--model", f"{name}={run}")]

    def file(self, *lines: str) -> str:
        path = self.folder / "scenes.txt"
        path.write_text("\n".join(lines or SCENES) + "\n", encoding="utf-8")
        return str(path)

    def run(self, *flags: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of the command, in this process; it must end by itself, not by an exception."""
        judge = [] if "--vbench" in flags else JUDGE
        result = CliRunner(env={"COLUMNS": "200"}).invoke(main, [*SIZE, *judge, "--out", str(self.out), *flags])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result.exit_code, result.stdout, result.stderr

    def score(self, *flags: str) -> str:
        """What it prints of both models' videos of all scenes."""
        code, stdout, stderr = self.run(*self.models, "--scenes", self.file(), *flags)
        assert code == 0, stderr
        return stdout

    def error(self, code: int, *flags: str) -> str:
        ended, _, stderr = self.run(*flags)
        assert ended == code, stderr
        (line, *_) = [line for line in stderr.splitlines() if line.startswith("error: ")]
        return line

    def items(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / name / "items.jsonl").read_text().splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return value

    @property
    def stamps(self) -> dict[str, int]:
        """When each video was written."""
        return {str(path): path.stat().st_mtime_ns for path in self.out.rglob("*.mp4")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PretrainedModels, dict[str, Path], Path]:
    """Read only."""
    folder = tmp_path_factory.mktemp("given")
    originals = make_originals(folder / "originals")
    save_text_encoder(originals.ltx)
    runs = {name: folder / name for name in ("sft", "rl")}
    for seed, run in enumerate(runs.values()):
        make_export(run / "export", originals, seed)
    clips = [
        sample_of(replace(sample(number).record, scene_description=f"What was before {number}."), b"no video", "")
        for number in range(8)
    ]
    seal_dataset(folder / "data", {ShardName("train", 0): clips[:5], ShardName("test", 0): clips[5:]})
    return originals, runs, folder / "data"


@pytest.fixture
def given(made: tuple[PretrainedModels, dict[str, Path], Path], tmp_path: Path) -> Given:
    return Given(*made, tmp_path)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeApi]:
    api_support.hurry(monkeypatch)
    with ClaudeApi(rules=RULES) as api:
        api_support.reach(monkeypatch, api)
        yield api


def said_of(item: dict[str, Any]) -> str:
    """The verdict that the server gives, worked out once more."""
    if not item["caption"] or "GARBLED" in item["caption"]:
        return ""
    return "Pass" if RULES.passes(item["scene"], item["caption"]) else "Fail"


# ---- scores ----------------------------------------------------------------------------------------------------


def test_a_score_is_the_share_of_passes_and_a_second_run_makes_and_asks_nothing(given: Given, api: ClaudeApi) -> None:
    api.faults = FaultSchedule(rates={"429": 0.1, "500": 0.1, "drop-before": 0.1})
    printed = given.score("--samples", "2")
    rows = {words[0]: words[1:] for line in printed.splitlines()[:3] if (words := line.split())}
    passes = 0
    for model in given.summary["models"]:
        items = given.items(model["name"])
        verdicts = [item["verdict"] for item in items]
        assert verdicts == [said_of(item) for item in items] and len(verdicts) == 10
        judged = [verdict for verdict in verdicts if verdict]
        score = model["score"]
        assert score["mean"] == pytest.approx(judged.count("Pass") / len(judged))
        assert 0 <= score["low"] <= score["mean"] <= score["high"] <= 1
        assert (score["judged"], score["missing"]) == (len(judged), 10 - len(judged))
        assert rows[model["name"]][0] == f"{score['mean']:.3f}"
        assert rows[model["name"]][4:6] == [str(len(judged)), str(10 - len(judged))]
        assert Decimal(model["usd"]) == sum(Decimal(item["usd"]) for item in items)
        passes += judged.count("Pass")
    assert passes > 0 and sum(model["score"]["missing"] for model in given.summary["models"]) > 0
    spent = sum(Decimal(model["usd"]) for model in given.summary["models"])
    assert spent == Decimal(given.summary["spent_usd"]) == interactive_cost(api) == account(given.out).spent
    assert f"${spent:,.4f} for {account(given.out).answers} answers" in printed

    arrived, stamps, summary = len(api.exchanges), given.stamps, given.summary
    items = (given.out / "sft" / "items.jsonl").read_bytes()
    assert given.score("--samples", "2") == printed
    assert (len(api.exchanges), given.stamps, given.summary) == (arrived, stamps, summary)
    assert (given.out / "sft" / "items.jsonl").read_bytes() == items


def test_models_are_compared_on_the_same_scenes_and_seeds(given: Given, api: ClaudeApi) -> None:
    api.rules = AnswerRules(pass_rate=0.5)
    original = f"ltx={given.originals.ltx}"
    given.score("--original", original, "--guidance", "1")
    ways = [[(item["scene"], item["seed"]) for item in given.items(name)] for name in ("sft", "rl", "ltx")]
    assert ways[0] == ways[1] == ways[2]
    assert [scene for scene, _ in ways[0]] == SCENES and len({seed for _, seed in ways[0]}) == 5
    assert len({item["model"] for name in ("sft", "rl", "ltx") for item in given.items(name)}) == 3
    found = {(one["of"], one["from"]): one for one in given.summary["differences"]}
    means = {model["name"]: model["score"]["mean"] for model in given.summary["models"]}
    assert found.keys() == {("rl", "sft"), ("ltx", "sft"), ("ltx", "rl")}
    for (of, than), one in found.items():
        assert one["mean"] == pytest.approx(means[of] - means[than])
        assert one["low"] <= one["mean"] <= one["high"] and one["scenes"] == 5


def test_an_item_says_all_that_its_verdict_comes_from(given: Given, api: ClaudeApi) -> None:
    api.rules = AnswerRules()
    given.score()
    item = given.items("rl")[2]
    assert item["scene"] == SCENES[2]
    with av.open(str(given.out / "rl" / "videos" / item["file"])) as video:
        stream = video.streams.video[0]
        assert (stream.frames, stream.width, stream.height) == (5, 32, 32)
    assert (item["judge_model"], item["reason"]) == ("claude-sonnet-5-5", "The caption shows a later moment.")
    assert item["prompts"] == {"caption": load("caption").sha256, "consistency": load("causal_consistency").sha256}
    assert item["model"].startswith("sft-7-nsp-")
    captioning = [str(exchange.body) for exchange in api.exchanges if "image/jpeg" in str(exchange.body)]
    assert len(captioning) == 10 and not any(scene in body for scene in SCENES for body in captioning)


def test_more_scenes_and_samples_are_added_to_what_is_there(given: Given, api: ClaudeApi) -> None:
    api.rules = AnswerRules()
    given.score("--max-scenes", "2")
    stamps, asked = given.stamps, len(api.exchanges)
    given.score("--max-scenes", "3", "--samples", "2")
    assert asked == 8 and len(api.exchanges) == 24
    assert len(given.stamps) == 12 and stamps.items() <= given.stamps.items()


def test_the_scenes_of_a_dataset_are_those_of_its_test_split(given: Given, api: ClaudeApi) -> None:
    api.rules = AnswerRules()
    code, _, stderr = given.run(*given.models[:2], "--data", str(given.data))
    assert code == 0, stderr
    scenes = {item["scene"] for item in given.items("sft")}
    other = replace(given, folder=given.folder / "other")
    code, _, stderr = other.run(*given.models[:2], "--data", str(given.data), "--split", "train", "--max-scenes", "4")
    assert code == 0, stderr
    assert scenes == {f"What was before {number}." for number in range(5, 8)}
    others = {item["scene"] for item in other.items("sft")}
    assert len(others) == len(other.items("sft")) == 4 and not scenes & others


# ---- ends ------------------------------------------------------------------------------------------------------


def test_a_budget_that_is_used_up_ends_with_3_and_a_larger_one_goes_on(given: Given, api: ClaudeApi) -> None:
    api.rules = AnswerRules(pass_rate=0.5)
    flags = [*given.models, "--scenes", given.file()]
    line = given.error(3, *flags, "--budget-usd", "0.014")
    assert "the budget of $0.014 is used up" in line and "Raise --budget-usd" in line
    assert interactive_cost(api) <= Decimal("0.014")
    stamps = given.stamps
    assert len(stamps) == 10 and 0 < len(api.paid) < 20
    given.score("--budget-usd", "1")
    assert given.stamps == stamps
    assert len(api.paid) == len(set(api.paid)) == 20


def test_with_a_key_that_the_api_does_not_accept_nothing_is_made(
    given: Given, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-wrong")
    assert "does not accept the key" in given.error(2, *given.models, "--scenes", given.file())
    assert not given.out.exists()


def test_without_a_key_nothing_is_made(given: Given, api: ClaudeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "")
    assert "ANTHROPIC_API_KEY is not set" in given.error(2, *given.models, "--scenes", given.file())
    assert not given.out.exists()


def test_a_model_without_any_verdict_ends_with_1_and_the_last_reason(given: Given, api: ClaudeApi) -> None:
    api.rules = AnswerRules(marked={"REFUSE-CAPTION": 1.0})
    code, stdout, stderr = given.run(*given.models, "--scenes", given.file())
    assert code == 1
    assert "sft: nothing was judged; last: refused, frontier_llm: caption: This request could assist" in stderr
    assert "rl: nothing was judged" in stderr
    assert [model["score"] for model in given.summary["models"]] == [None, None]
    assert [line.split()[1] for line in stdout.splitlines() if line.startswith(("sft", "rl"))] == ["–", "–"]


def test_a_video_that_was_damaged_is_named(given: Given, api: ClaudeApi) -> None:
    given.score()
    video = given.out / "rl" / "videos" / "00001-0.mp4"
    video.write_bytes(video.read_bytes()[:-200])
    line = given.error(3, *given.models, "--scenes", given.file())
    assert str(video) in line and "delete it" in line
    video.unlink()
    given.score()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "name one source of scenes"),
        (["--scenes", "{scenes}", "--data", "{data}"], "name one source of scenes"),
        (["--scenes", "{scenes}"], "name a model"),
        (["--scenes", "{scenes}", "--model", "{run}"], "give the model a name, and its place"),
        (["--scenes", "{scenes}", "--model", "a="], "give the model a name, and its place"),
        (["--scenes", "{scenes}", "--model", "a={run}", "--model", "b={run}"], "is the same model as a"),
        (["--scenes", "{scenes}", "--model", "a={run}", "--out", "{data}"], "'manifest.json' and no nextscene.json"),
        (["--scenes", "{scenes}", "--model", "a b={run}"], "a name is of letters"),
        (["--scenes", "{scenes}", "--model", "calls={run}"], "the name calls is taken"),
        (["--scenes", "{scenes}", "--model", "a={run}", "--original", "a={ltx}"], "the name a is taken"),
        (["--scenes", "{scenes}", "--model", "a={data}"], "holds no trained model"),
        (["--scenes", "{scenes}", "--model", "a={step}"], "is a checkpoint, which needs --qwen and --ltx"),
        (["--data", "{data}", "--split", "valid", "--model", "a={run}"], "no samples in a split 'valid'"),
        (["--data", "{run}", "--model", "a={run}"], "holds no dataset"),
        (["--scenes", "{scenes}", "--model", "a={run}", "--original", "b=/nowhere"], "/nowhere holds no scheduler"),
        (["--scenes", "{scenes}", "--model", "batches={run}"], "the name batches is taken"),
        (
            ["--scenes", "{scenes}", "--model", "a={run}", "--judge-model", "claude-sonnet-55"],
            "--judge-model claude-sonnet-55: no price known",
        ),
        (["--scenes", "{scenes}", "--model", "a={run}", "--judge.frames", "0"], "judge.frames must be above 0"),
        (["--scenes", "{scenes}", "--model", "a={run}", "--budget-usd", "inf"], "is not an amount of money"),
        (["--scenes", "{scenes}", "--model", "a={run}", "--frames", "6"], "such a video cannot be made"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_asked(given: Given, api: ClaudeApi, flags: list[str], says: str) -> None:
    step = given.folder / "step-7"
    step.mkdir()
    (step / "about.json").touch()
    run, ltx = given.runs["sft"], given.originals.ltx
    places = {"scenes": given.file(), "data": given.data, "run": run, "ltx": ltx, "step": step}
    assert says in given.error(2, *(flag.format(**places) for flag in flags))
    assert api.exchanges == []


# ---- VBench ----------------------------------------------------------------------------------------------------


def test_vbenchs_folders_are_filled_and_nobody_is_asked(given: Given, api: ClaudeApi) -> None:
    prompts = given.file("a person is swimming", "Snow rocky mountains peaks canyon, in super slow motion")
    code, stdout, stderr = given.run(*given.models, "--vbench", prompts)
    assert code == 0, stderr
    assert "sft: 10 videos, 10 of them new" in stdout
    assert {path.name for path in (given.out / "rl" / "videos").iterdir()} == {
        f"{prompt}-{i}.mp4"
        for prompt in ("a person is swimming", "Snow rocky mountains peaks canyon, in super slow motion")
        for i in range(5)
    }
    records = [json.loads(line) for line in (given.out / "sft" / "videos.jsonl").read_text().splitlines()]
    assert len({record["seed"] for record in records}) == 10 and "-t2v-" in records[0]["model"]
    assert "sft: 10 videos, 0 of them new" in given.run(*given.models, "--vbench", prompts)[1]
    assert api.exchanges == []


@pytest.mark.parametrize("flag", ["--judge.frames", "--budget-usd"])
def test_of_videos_that_are_not_judged_no_judge_is_told(given: Given, flag: str) -> None:
    line = given.error(2, *given.models, "--vbench", given.file("a cat"), flag, "3")
    assert f"nothing for {flag}" in line and not given.out.exists()


@pytest.mark.parametrize("prompt", ["a cat/dog hybrid", "word " * 50, "a cat\tand a dog"])
def test_a_prompt_that_can_name_no_file_is_told(given: Given, prompt: str) -> None:
    line = given.error(2, *given.models, "--vbench", given.file("a cat", prompt))
    assert repr(prompt[:40].strip())[1:-1] in line and not given.out.exists()
